"""What the papers state: short quotations, each tested by a claim of a figure or left out for a reason."""

import ast
import re
from pathlib import Path

import pytest

from lnsgd.figures.framework.catalogue import STATEMENTS
from lnsgd.figures.framework.statements import MOST_WORDS, Statement

FOLDER = Path(__file__).parents[3] / "lnsgd" / "figures"
EVERY = pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)


def texts_of_figures() -> set[str]:
    """Return the texts in the modules of figures, which name statements as they are, so that they can be searched."""
    paths = [path for path in FOLDER.glob("*/*.py") if path.name != "statements.py" and path.parent.name != "framework"]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


NAMED = texts_of_figures()


@EVERY
def test_quotations_have_at_most_a_dozen_words(statement: Statement) -> None:
    words = [word for word in statement.quote.split() if word != "…"]
    assert 1 <= len(words) <= MOST_WORDS


@EVERY
def test_a_statement_is_named_by_a_figure_or_says_why_not(statement: Statement) -> None:
    assert (statement.id.partition("/")[2] in NAMED) == (not statement.untested)


@EVERY
def test_names_are_short_and_sections_are_given(statement: Statement) -> None:
    assert re.fullmatch(r"[a-z]+/[a-z0-9]+(-[a-z0-9]+)*", statement.id)
    assert statement.section
    assert statement.source == f"{statement.paper}, {statement.section}"


def test_no_statement_is_listed_twice() -> None:
    said = [(statement.section, statement.quote) for statement in STATEMENTS.values()]
    assert len(set(said)) == len(said)
