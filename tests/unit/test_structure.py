"""Rules that keep the package readable; the import direction is checked by import-linter (`make check`)."""

import ast

import pytest

from coinwatch.settings import PROJECT_DIR

PACKAGE = PROJECT_DIR / "include" / "coinwatch"
LINES_MAX = 400


def modules():
    return sorted(path.relative_to(PROJECT_DIR) for path in PACKAGE.rglob("*.py"))


def test_no_module_has_more_than_400_lines():
    lines = {str(path): len((PROJECT_DIR / path).read_text().splitlines()) for path in modules()}
    assert {name: number for name, number in lines.items() if number > LINES_MAX} == {}


@pytest.mark.parametrize("package", [path for path in modules() if path.name == "__init__.py"], ids=str)
def test_a_package_says_in_one_sentence_what_belongs_there(package):
    docstring = ast.get_docstring(ast.parse((PROJECT_DIR / package).read_text()))
    assert docstring
    assert docstring.endswith(".")
    assert "\n" not in docstring
