"""The project speaks one language: docs/glossary.md."""

import re
import subprocess

import pytest

from coinwatch.settings import PROJECT_DIR

NEVER = re.compile(
    r"\b(told|tell|tells|telling|untold|troubles?|mend|mends|mended|mending|parcels?|whoever|likewise|fates?"
    r"|none of ours|for want of|can(not)? be had|could not be had|hears? of|stands still|comes to nothing"
    r"|taken in|takes in|goes before|for ever|as it stands)\b",
    re.IGNORECASE,
)

THIS = "tests/unit/test_glossary.py"


def texts():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - the git on the PATH
        cwd=PROJECT_DIR,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        path = PROJECT_DIR / name
        if name != THIS and not name.startswith("requirements") and name != "LICENSE" and path.is_file():
            yield name, path.read_text(encoding="utf-8", errors="ignore")


def test_no_word_that_the_glossary_replaces_is_used():
    used = [
        f"{name}:{number}: {match.group()}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        for match in NEVER.finditer(line)
    ]
    assert used == []


@pytest.mark.parametrize("sentence", ["It could not be had.", "Nobody was Told.", "the fates of hours"])
def test_the_search_finds_what_it_should(sentence):
    assert NEVER.search(sentence)
