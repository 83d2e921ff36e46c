"""Final measures of a run as a table."""

import pandas as pd

from lnsgd.callbacks.recording.tables import final_table

COLUMNS = ["step", "epoch", "replica", "split", "measure", "layer", "value", "stderr"]


def measures(*rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def test_last_value_of_each_number() -> None:
    nan = float("nan")
    found = final_table(
        measures(
            (0, 0, 0, "train", "active", "a", 1.0, nan),
            (0, 0, 0, "", "distance", "", 2.0, nan),
            (5, 0, 0, "train", "active", "a", 3.0, 0.5),
            (5, 0, 0, "train", "active", "b", 4.0, nan),
        )
    )
    assert list(found.columns) == ["measure", "split", "layer", "step", "value", "stderr"]
    assert {(row.measure, row.layer): (row.step, row.value) for row in found.itertuples()} == {
        ("distance", ""): (0, 2.0),
        ("active", "a"): (5, 3.0),
        ("active", "b"): (5, 4.0),
    }
    assert found.stderr.tolist()[1] == 0.5


def test_replicas_follow_each_other() -> None:
    rows = [(step, 0, replica, "", "m", "", 10.0 * replica + step, 0.0) for step in (1, 2) for replica in (0, 1)]
    found = final_table(measures(*rows, (1, 0, 2, "", "m", "", 7.0, 0.0)))  # the third has diverged
    assert found[["replica", "step", "value"]].to_numpy().tolist() == [[0, 2, 2.0], [1, 2, 12.0], [2, 1, 7.0]]
