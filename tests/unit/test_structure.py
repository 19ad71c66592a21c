"""Rules that keep the package readable; the import direction is checked by import-linter (`make check`)."""

import ast
import builtins

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


def test_every_error_belongs_to_one_family():
    """A task or a command knows what to do with a `CoinwatchError`; only a private one may have another base."""
    bases = {
        node.name: [ast.unparse(base) for base in node.bases]
        for path in modules()
        for node in ast.walk(ast.parse((PROJECT_DIR / path).read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }

    def ancestors(name):
        return {name}.union(*map(ancestors, bases.get(name, [])))

    def is_exception(name):
        return isinstance(getattr(builtins, name, None), type) and issubclass(getattr(builtins, name), BaseException)

    errors = {name for name in bases if any(map(is_exception, ancestors(name)))}
    assert "RateLimited" in errors
    assert {name for name in errors if "CoinwatchError" not in ancestors(name)} == set()
