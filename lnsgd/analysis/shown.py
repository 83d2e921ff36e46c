"""Numbers of an analysis on the terminal."""

import pandas as pd
from rich.table import Column, Table

from lnsgd.numbers import plus_minus

# More checkpoints are not shown beside each other: the first, and the last of them.
_COLUMNS = 3

# Of what is measured of more layers than these no row is shown.
_LAYERS = 24


def shown(table: pd.DataFrame) -> Table:
    """A row for each measure of a whole network or of a site, a column for each checkpoint: value ± standard error.

    Of replicas it is the mean ± the standard deviation over them. Parts of a total are in the files.
    """
    checkpoints = list(dict.fromkeys(zip(table.checkpoint, table.step)))
    columns = checkpoints if len(checkpoints) <= _COLUMNS else [checkpoints[0], *checkpoints[1 - _COLUMNS :]]
    title = (
        None if columns == checkpoints else f"{len(columns)} of {len(checkpoints)} checkpoints; all are in the files"
    )
    drawn = Table(_name(), "split", _layer(), *(_heading(*one) for one in columns), title=title)
    for (measure, split, layer), of_measure in _headlines(table).groupby(["measure", "split", "layer"], sort=False):
        cells = [of_measure[of_measure.checkpoint == path] for path, _ in columns]
        drawn.add_row(str(measure), str(split), str(layer), *map(_cell, cells))
    return drawn


def shown_differences(table: pd.DataFrame, names: tuple[str, str]) -> Table:
    """A row for each number that two networks have: of both, and the difference ± its standard error.

    Args:
        table: See `lnsgd.analysis.compare.Comparison`.
        names: Of the networks.
    """
    drawn = Table(_name(), "split", _layer(), f"A: {names[0]}", f"B: {names[1]}", "B − A")
    for row in _headlines(table).to_dict("records"):
        a, b = plus_minus(row["a"], row["stderr_a"]), plus_minus(row["b"], row["stderr_b"])
        drawn.add_row(row["measure"], row["split"], row["layer"], a, b, plus_minus(row["difference"], row["stderr"]))
    return drawn


def shown_similarity(table: pd.DataFrame) -> Table:
    """A row for each number that says how alike two networks are: mean over pairs ± their standard deviation."""
    drawn = Table(_name(), "split", _layer(), "value")
    for (measure, split, layer), rows in table.groupby(["measure", "split", "layer"], sort=False):
        drawn.add_row(str(measure), str(split), str(layer), plus_minus(rows.value.mean(), rows.value.std(ddof=1)))
    return drawn


def _name() -> Column:
    return Column("measure", no_wrap=True)


def _layer() -> Column:
    """Which tensor of a layer it is stands at the end of its name."""
    return Column("layer", overflow="fold")


def _headlines(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of whole networks; of what is measured of layers only, those, unless there are too many."""
    layers = table.groupby("measure")["layer"].transform("nunique")
    whole = (table.layer == "").groupby(table.measure).transform("any")
    return table[(table.layer == "") | (~whole & (layers <= _LAYERS))]


def _heading(path: str, step: object) -> str:
    *_, run, name = ("", *str(path).replace("/checkpoints/", "/").split("/"))
    return f"{run}/{name}" if pd.isna(step) else f"{run}\nstep {step}"  # type: ignore[call-overload]


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "–"
    if len(rows) > 1:
        return f"{plus_minus(rows.value.mean(), rows.value.std(ddof=1))} (n = {len(rows)})"
    return plus_minus(rows.value.iloc[0], rows.stderr.iloc[0])
