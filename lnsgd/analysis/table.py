"""The tidy table of an analysis."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lnsgd.analysis.source import Checkpoint
from lnsgd.callbacks.measurements import Measurement

# What a row says, and how it is kept; step and epoch are missing where a file does not say them.
COLUMNS = {
    "checkpoint": "string",
    "step": "Int64",
    "epoch": "Int64",
    "replica": "int64",
    "split": "string",
    "measure": "string",
    "layer": "string",
    "value": "float64",
    "stderr": "float64",
}


def rows_of(checkpoint: Checkpoint, replica: int, found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Rows of the measurements of one network."""
    where = {
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.step,
        "epoch": checkpoint.epoch,
        "replica": replica,
    }
    return [{**where, **measurement._asdict()} for measurement in found]


def tabled(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The table of rows."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)
