"""The glossary is short, defines each word once, and defines only words that the package uses."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRIES = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
SOURCE = "\n".join(
    path.read_text().lower()
    for folder in ("lnsgd", "callbacks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.is_relative_to(ROOT / "lnsgd" / "callbacks")  # a link to callbacks/
)


def test_at_most_thirty_words_are_defined_once() -> None:
    words = [word for word, _ in ENTRIES]
    assert 20 <= len(words) <= 30
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(("word", "meaning"), ENTRIES, ids=[word for word, _ in ENTRIES])
def test_word_has_a_short_definition(word: str, meaning: str) -> None:
    assert meaning.endswith(".")
    assert len(re.findall(r"[.!?](?= |$)", meaning)) <= 2  # sentences
    assert word == word.lower()


@pytest.mark.parametrize("word", [word for word, _ in ENTRIES])
def test_word_is_used_in_the_package(word: str) -> None:
    assert re.search(rf"\b{re.sub('[ -]', '[ _-]', word)}s?\b", SOURCE)
