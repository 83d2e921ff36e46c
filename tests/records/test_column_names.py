"""The columns of records are named in ``lnsgd/records`` alone; other rooms import the names, or the functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lnsgd.records import analyses, cells, claims, measures, metrics, provenance, replicas

ROOT = Path(__file__).parents[2]

# Columns of each table, and fields of each JSON file.
RECORDS: dict[str, set[str]] = {
    "measures.parquet": {*measures.COLUMNS},
    "metrics.csv": {metrics.STEP, metrics.EPOCH},
    "replicas.csv": {replicas.REPLICA, replicas.SEED, *replicas.ENDS},
    "cells": {cells.CELL, cells.OPTIONS, *cells.COLUMNS},
    "trajectories": {*cells.TRAJECTORIES},
    "analysis.parquet": {*analyses.COLUMNS},
    "differences.parquet": {*analyses.DIFFERENCES},
    "similarity.parquet": {*analyses.SIMILARITY},
    "path.parquet": {*analyses.PATH},
    "finished.json": {*provenance._KINDS},
    "claims.json": {*claims._CLAIM_KINDS},
}

# Columns whose names are also ordinary words of other things: axes and legends of pictures, headings of tables, options
# of classes and commands, fields of checkpoints. Each may stand alone; three of one record together may not.
ORDINARY = {
    *("step", "steps", "epoch", "epochs", "split", "layer", "value", "seed", "seconds", "device", "threads"),
    *("cell", "options", "status", "reason", "attempts", "job", "jobs", "checkpoint", "measure", "replica"),
    *("lnsgd", "torch", "command", "ended", "versions", "processes", "a", "b", "t", "pairs", "difference"),
    *("claim", "source", "paper", "measured", "std", "n", "low", "high"),
    *("kind", "statistic", "interval", "verdict", "id", "statement", "quote", "why"),
    *("inputs", "preprocessing"),
}
DISTINCTIVE = set().union(*RECORDS.values()) - ORDINARY

# Files that keep the state of replicas and stopping rules in checkpoints, whose fields have the names of columns.
CHECKPOINTED = {"callbacks/stopping/rule.py", "lnsgd/replicas/frozen.py"}

# The most columns of one record that may stand together.
MOST_TOGETHER = 2


def strings(node: ast.AST) -> list[str]:
    """Texts that stand directly in a list, a tuple, a set, or are the keys of a dictionary or of a call's keywords."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        found = node.elts
    elif isinstance(node, ast.Dict):
        found = [key for key in node.keys if key is not None]
    else:
        return []
    return [one.value for one in found if isinstance(one, ast.Constant) and isinstance(one.value, str)]


def named(source: str) -> Iterator[str]:
    """Return the violations of the rule as text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in DISTINCTIVE:
            yield f"line {node.lineno}: {node.value!r}"
        for record, columns in RECORDS.items():
            if len(together := columns.intersection(strings(node))) > MOST_TOGETHER:
                yield f"line {node.lineno}: {', '.join(sorted(together))} of {record}"


FILES = sorted(
    path
    for top in ("lnsgd", "callbacks")
    for path in (ROOT / top).rglob("*.py")
    if "lnsgd/callbacks" not in str(path) and "lnsgd/records" not in str(path)
)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_columns_are_named_in_records_alone(path: Path) -> None:
    found = list(named(path.read_text()))
    assert bool(found) == (str(path.relative_to(ROOT)) in CHECKPOINTED), found


def test_every_ordinary_word_is_a_column() -> None:
    """So that the list does not outlive the columns."""
    assert set().union(*RECORDS.values()) >= ORDINARY
    assert {"stderr", "diverged_at", "stopped_at", "stopped_by", "jobs_at_once", "process_history"} <= DISTINCTIVE


BROKEN = {
    "distinctive": 'rows["stderr"]',
    "attribute-of-a-file": 'json.loads(text)["stopped_by"]',
    "list": 'keys = ["measure", "split", "layer"]',
    "tuple": 'COLUMNS = ("seed", "split", "measure")',
    "row": 'row = {"cell": 1, "status": 2, "reason": 3}',
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_column_named_elsewhere_is_found(source: str) -> None:
    assert list(named(source))


@pytest.mark.parametrize(
    "source", ['axis.set_xlabel("step")', 'Literal["epoch", "step"]', 'names = ("split", "examples")']
)
def test_other_meanings_of_a_word_pass(source: str) -> None:
    assert list(named(source)) == []
