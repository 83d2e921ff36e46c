"""Reading run folders that were made by hand."""

from pathlib import Path

import numpy as np
import pytest

from lnsgd.figures.framework.results import Curves, last_by_layer, measured, replicas, weights
from lnsgd.records.provenance import read_provenance
from tests.figures import tiny
from tests.figures.tiny import hand_made_run

# Out of order, as a run that was resumed may leave them; replica 1 of three has diverged after step 10.
ROWS = [
    (10, 0, "train", "active", "a", 2.0),
    (0, 0, "train", "active", "a", 1.0),
    (0, 1, "train", "active", "a", 10.0),
    (10, 1, "train", "active", "a", 20.0),
    (30, 0, "train", "active", "a", 3.0),
    (0, 2, "train", "active", "a", 100.0),
    (10, 2, "train", "active", "a", 200.0),
    (30, 2, "train", "active", "a", 300.0),
    (0, 0, "train", "active", "b", -1.0),
    (0, 0, "val", "active", "a", -2.0),
    (0, 0, "", "distance", "", 0.5),
]
DIVERGED = (None, 12, None)


def test_values_by_replica_and_step(tmp_path: Path) -> None:
    curves = measured(hand_made_run(tmp_path, ROWS, DIVERGED), "active", "train")
    assert curves.steps.tolist() == [0, 10, 30]
    np.testing.assert_array_equal(curves.values, [[1, 2, 3], [10, 20, np.nan], [100, 200, 300]])
    np.testing.assert_allclose(curves.stderrs, curves.values / 10)
    np.testing.assert_array_equal(curves.last, [3, np.nan, 300])


def test_split_and_layer_are_told_apart(tmp_path: Path) -> None:
    run = hand_made_run(tmp_path, ROWS, (None,))
    assert measured(run, "active", "train").last.tolist() == [3]
    assert measured(run, "active", "train", layer="b").last.tolist() == [-1]
    assert measured(run, "active", "val").last.tolist() == [-2]
    assert measured(run, "distance").last.tolist() == [0.5]


def test_last_values_of_every_layer_in_the_order_of_the_first(tmp_path: Path) -> None:
    """Not in the order of the alphabet; a replica that was not measured to the end is NaN."""
    rows = [
        (0, 0, "train", "active", "relu", 1.0),
        (0, 0, "train", "active", "deep", 2.0),
        (0, 0, "train", "active", "broad", 3.0),
        (0, 0, "val", "active", "other", 9.0),
        *((5, 0, "train", "active", name, value) for name, value in (("broad", 30.0), ("relu", 10.0), ("deep", 20.0))),
        (0, 1, "train", "active", "relu", 4.0),
    ]
    run = hand_made_run(tmp_path, rows)
    found = last_by_layer(run, "active", "train")
    assert list(found) == ["relu", "deep", "broad"]
    np.testing.assert_array_equal(found, [[10, 20, 30], [np.nan] * 3])
    with pytest.raises(ValueError, match="has no active on split 'test'"):
        last_by_layer(run, "active", "test")


def test_a_replica_that_was_never_measured_is_nan(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row[1] != 1]
    curves = measured(hand_made_run(tmp_path, rows, (None, 0, None)), "active", "train")
    np.testing.assert_array_equal(curves.values[1], [np.nan] * 3)
    assert curves.values.shape == (3, 3)


MISSING = {"measure": ("inactive", "train", None), "split": ("active", "test", None), "layer": ("active", "train", "c")}


@pytest.mark.parametrize(("measure", "split", "layer"), MISSING.values(), ids=MISSING)
def test_what_was_not_measured(tmp_path: Path, measure: str, split: str, layer: str | None) -> None:
    run = hand_made_run(tmp_path, ROWS, DIVERGED)
    with pytest.raises(ValueError, match=rf"{run.measures} has no {measure} on split '{split}'"):
        measured(run, measure, split, layer)


AT = {"exactly": (10, [2, 20]), "between": (29, [2, 20]), "start": (0, [1, 10]), "beyond-the-end": (99, [3, 30])}
CURVES = Curves(np.array([0, 10, 30]), np.array([[1, 2, 3], [10, 20, 30]]), np.full((2, 3), np.nan))


@pytest.mark.parametrize(("step", "expected"), AT.values(), ids=AT)
def test_at_a_step_is_the_last_measurement_up_to_it(step: int, expected: list[int]) -> None:
    assert CURVES.at(step).tolist() == expected


def test_at_a_step_before_the_first() -> None:
    with pytest.raises(ValueError, match="nothing was measured up to step 4; the first measurement is at 5"):
        Curves(np.array([5]), np.ones((1, 1)), np.ones((1, 1))).at(4)


def test_replicas_and_seconds(tmp_path: Path) -> None:
    run = hand_made_run(tmp_path, ROWS, DIVERGED, seconds=12.5)
    table = replicas(run)
    assert table.index.tolist() == table["seed"].tolist() == [0, 1, 2]
    assert table["diverged_at"].dropna().to_dict() == {1: 12}
    assert read_provenance(run.finished).seconds == 12.5


def test_weights_are_those_before_and_after_training(tmp_path: Path) -> None:
    run = tiny.run(tiny.figure(tmp_path), tmp_path / "out")["p = 0"]
    before, after = (weights(run, "layers.0.weight", initial=initial) for initial in (True, False))
    assert before.shape == after.shape == (2, 8, 6)
    assert before.dtype == after.dtype == np.float64
    assert (before != after).any(axis=(1, 2)).all()
    with pytest.raises(ValueError, match=r"no weights 'layers.9.weight'; there are .*layers.0.weight"):
        weights(run, "layers.9.weight")
