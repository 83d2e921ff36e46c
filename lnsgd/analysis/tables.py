"""Tables of an analysis on the terminal."""

import pandas as pd
from rich.table import Column, Table

from lnsgd.console.numbers import plus_minus
from lnsgd.records.analyses import differences_of
from lnsgd.records.measures import QUANTITY, headlines, with_weights_in_names

# Number of checkpoints that are shown beside each other: the first one and the last ones.
_SHOWN_CHECKPOINTS = 3

# Of a measure of more layers than this, only the number of the whole network is shown.
_SHOWN_LAYERS = 24


def measurement_table(table: pd.DataFrame) -> Table:
    """Lay out an analysis for the terminal: a row per measure of a network or of a site, a column per checkpoint.

    A cell is the value ± its standard error; for replicas it is the mean ± the standard deviation over them. Tensors
    are left out where there is a number of all of them, and so is the only activation site of a network.

    Args:
        table: The tidy table.
    """
    table = with_weights_in_names(table)
    checkpoints = list(dict.fromkeys(zip(table.checkpoint, table.step)))
    shown = checkpoints
    title = None
    if len(checkpoints) > _SHOWN_CHECKPOINTS:
        shown = [checkpoints[0], *checkpoints[1 - _SHOWN_CHECKPOINTS :]]
        title = f"{len(shown)} of {len(checkpoints)} checkpoints; all are in the files"
    laid_out = Table(_measure_column(), "split", _layer_column(), *(_heading(*one) for one in shown), title=title)
    for (measure, split, layer), rows in headlines(table, _SHOWN_LAYERS).groupby(list(QUANTITY), sort=False):
        cells = [_cell(rows[rows.checkpoint == path]) for path, _ in shown]
        laid_out.add_row(str(measure), str(split), str(layer), *cells)
    return laid_out


def difference_table(table: pd.DataFrame, names: tuple[str, str]) -> Table:
    """Lay out the differences of two networks for the terminal: both values, and the difference ± its standard error.

    Args:
        table: See `lnsgd.analysis.Comparison`.
        names: Names of the two networks.
    """
    laid_out = Table(_measure_column(), "split", _layer_column(), f"A: {names[0]}", f"B: {names[1]}", "B − A")
    for row in differences_of(headlines(table, _SHOWN_LAYERS)):
        a, b = plus_minus(row.a, row.stderr_a), plus_minus(row.b, row.stderr_b)
        laid_out.add_row(row.measure, row.split, row.layer, a, b, plus_minus(row.difference, row.stderr))
    return laid_out


def similarity_table(table: pd.DataFrame) -> Table:
    """Lay out the similarity of two networks for the terminal: means over pairs ± their standard deviations.

    Args:
        table: See `lnsgd.analysis.Comparison`.
    """
    laid_out = Table(_measure_column(), "split", _layer_column(), "value")
    for (measure, split, layer), rows in table.groupby(list(QUANTITY), sort=False):
        laid_out.add_row(str(measure), str(split), str(layer), plus_minus(rows.value.mean(), rows.value.std(ddof=1)))
    return laid_out


def _measure_column() -> Column:
    return Column("measure", no_wrap=True)


def _layer_column() -> Column:
    """Fold long names, whose end says which tensor of a layer it is."""
    return Column("layer", overflow="fold")


def _heading(path: str, step: object) -> str:
    *_, run, name = ("", *str(path).replace("/checkpoints/", "/").split("/"))
    return f"{run}/{name}" if pd.isna(step) else f"{run}\nstep {step}"  # type: ignore[call-overload]


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "–"
    if len(rows) > 1:
        return f"{plus_minus(rows.value.mean(), rows.value.std(ddof=1))} (n = {len(rows)})"
    return plus_minus(rows.value.iloc[0], rows.stderr.iloc[0])
