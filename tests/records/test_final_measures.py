"""The one definition of a final measure."""

from dataclasses import fields

import pandas as pd

from lnsgd.measures import TOTAL
from lnsgd.measuring import Measurement
from lnsgd.records.cells import COLUMNS as CELL_COLUMNS
from lnsgd.records.cells import CellResult, final_measures
from lnsgd.records.measures import COLUMNS, WEIGHTS, final, final_table, headlines, no_measures

NAN = float("nan")


def measures(*rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name != WEIGHTS])  # as an earlier version wrote it


def test_last_value_of_each_number_in_the_order_of_the_file() -> None:
    found = final(
        measures(
            (0, 0, 0, "train", "active", "a", 1.0, NAN),
            (0, 0, 0, "", "distance", "", 2.0, NAN),
            (5, 0, 0, "train", "active", "a", 3.0, 0.5),
            (5, 0, 0, "train", "active", "b", 4.0, NAN),
        )
    )
    assert list(found[["measure", "layer", "step", "value"]].itertuples(index=False, name=None)) == [
        ("distance", "", 0, 2.0),
        ("active", "a", 5, 3.0),
        ("active", "b", 5, 4.0),
    ]


def test_number_that_was_not_measured_at_the_last_step_counts_with_its_own() -> None:
    table = measures(
        (3, 0, 0, "", "first_fit", "", 0.5, NAN),
        (9, 1, 0, "", "loss", "", 1.0, NAN),
        (9, 1, 1, "", "loss", "", 2.0, NAN),
    )
    assert final(table)[["replica", "step", "value"]].to_numpy().tolist() == [[0, 3, 0.5], [0, 9, 1.0], [1, 9, 2.0]]
    assert final_measures(table, 0) == {"first_fit": 0.5, "loss": 1.0}
    assert final_measures(table, 1) == {"loss": 2.0}


def test_names_are_those_of_the_loggers() -> None:
    row = Measurement("trace", "train", "net.0", 2.0, 0.25)
    assert final_measures(measures((1, 0, 0, *row[1:2], row.measure, *row[2:5])), 0) == {
        "trace/train/net.0": 2.0,
        "trace/train/net.0/stderr": 0.25,
    }


def test_nothing_was_measured() -> None:
    assert final(no_measures()).empty
    assert final_measures(no_measures(), 0) == {}
    assert list(final_table(no_measures())) == ["measure", "split", "layer", "step", "value", "stderr"]


def test_a_row_of_a_sweep_has_all_columns() -> None:
    assert [field.name for field in fields(CellResult)] == list(CELL_COLUMNS)


def test_headlines_are_totals_and_sites_but_not_tensors_or_a_site_alone() -> None:
    rows = [
        *(("active", layer) for layer in (TOTAL, "a", "b")),
        *(("dead", layer) for layer in (TOTAL, "a")),
        *(("many", layer) for layer in (TOTAL, "a", "b", "c")),
        *(("distance", layer) for layer in ("", "a.weight")),
        *(("norm", layer) for layer in ("a.weight", "b.weight")),
    ]
    shown = headlines(pd.DataFrame(rows, columns=["measure", "layer"]), most_layers=2)
    assert list(shown.itertuples(index=False, name=None)) == [
        *(("active", layer) for layer in (TOTAL, "a", "b")),
        ("dead", TOTAL),
        ("many", TOTAL),
        ("distance", ""),
        *(("norm", layer) for layer in ("a.weight", "b.weight")),
    ]
