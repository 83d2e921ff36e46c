"""The replicas of a grid, and statistics over replicas that differ in the seed alone."""

import math
import statistics
from typing import Any

import pytest

from lnsgd.replicas import Replica, ReplicaGrid, group_statistics, groups


def test_a_number_of_seeds_is_counted_from_the_seed_of_the_run() -> None:
    assert ReplicaGrid(seeds=3).replicas(7) == [Replica(7), Replica(8), Replica(9)]
    assert ReplicaGrid().replicas(4) == [Replica(4)]


def test_seeds_in_a_list_are_as_given() -> None:
    assert ReplicaGrid(seeds=[5, 0, 2]).replicas(7) == [Replica(5), Replica(0), Replica(2)]


def test_every_combination_with_seeds_next_to_each_other() -> None:
    grid = ReplicaGrid(seeds=2, noise=[0.0, 0.2], lr=[0.1, 0.3], subset=[50])
    assert grid.replicas(0) == [
        Replica(seed, noise, lr, 50) for noise in (0.0, 0.2) for lr in (0.1, 0.3) for seed in (0, 1)
    ]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no-seeds": ({"seeds": 0}, "replicas.seeds = 0; give at least 1"),
    "negative-seeds": ({"seeds": -2}, "replicas.seeds = -2"),
    "empty-seeds": ({"seeds": []}, r"replicas.seeds = \[\]"),
    "repeated-seed": ({"seeds": [1, 2, 1]}, r"replicas.seeds = \[1, 2, 1\]; give one or more different"),
    "empty-noise": ({"noise": []}, r"replicas.noise = \[\]"),
    "repeated-noise": ({"noise": [0.1, 0.1]}, r"replicas.noise = \[0.1, 0.1\]"),
    "repeated-lr": ({"lr": [0.1, 0.1]}, "replicas.lr"),
    "repeated-subset": ({"subset": [3, 3]}, "replicas.subset"),
    "no-steps-per-call": ({"steps_per_call": 0}, "replicas.steps_per_call = 0; give at least 1"),
}


@pytest.mark.parametrize(("options", "says"), REFUSED.values(), ids=REFUSED)
def test_bad_grids_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ReplicaGrid(**options)


GROUPS: dict[str, tuple[list[Replica], dict[str, list[int]]]] = {
    "seeds-only": (ReplicaGrid(seeds=3).replicas(0), {"": [0, 1, 2]}),
    "one-noise": (ReplicaGrid(seeds=2, noise=[0.1]).replicas(0), {"": [0, 1]}),
    "noise": (ReplicaGrid(seeds=2, noise=[0.0, 0.1]).replicas(0), {"noise=0.0": [0, 1], "noise=0.1": [2, 3]}),
    "noise-and-lr": (
        ReplicaGrid(noise=[0.0, 0.1], lr=[1.0, 2.0]).replicas(0),
        {"noise=0.0,lr=1.0": [0], "noise=0.0,lr=2.0": [1], "noise=0.1,lr=1.0": [2], "noise=0.1,lr=2.0": [3]},
    ),
    "subset": (ReplicaGrid(subset=[10, 20]).replicas(0), {"subset=10": [0], "subset=20": [1]}),
    "in-any-order": ([Replica(0, lr=1.0), Replica(0, lr=2.0), Replica(1, lr=1.0)], {"lr=1.0": [0, 2], "lr=2.0": [1]}),
    "some-as-in-the-cell": ([Replica(0), Replica(0, noise=0.1)], {"noise=None": [0], "noise=0.1": [1]}),
}


@pytest.mark.parametrize(("replicas", "expected"), GROUPS.values(), ids=GROUPS)
def test_groups(replicas: list[Replica], expected: dict[str, list[int]]) -> None:
    assert groups(replicas) == expected
    assert list(groups(replicas)) == list(expected)


def test_mean_and_standard_deviation_of_each_group() -> None:
    values = {0: 1.0, 1: 4.0, 2: 2.5, 3: 7.0}
    found = group_statistics("loss/train", values, {"noise=0.0": [0, 1, 2], "noise=0.1": [3]})
    assert found == {
        "loss/train/noise=0.0/mean": pytest.approx(2.5),
        "loss/train/noise=0.0/std": pytest.approx(statistics.stdev([1.0, 4.0, 2.5])),
        "loss/train/noise=0.1/mean": 7.0,
    }


def test_a_single_group_has_no_name() -> None:
    assert set(group_statistics("loss", {0: 1.0, 1: 2.0}, {"": [0, 1]})) == {"loss/mean", "loss/std"}


def test_replicas_without_a_value_do_not_count() -> None:
    members = {"a": [0, 1, 2], "b": [3]}
    found = group_statistics("loss", {0: 1.0, 2: 3.0}, members)
    assert found == {"loss/a/mean": 2.0, "loss/a/std": pytest.approx(math.sqrt(2))}
    assert group_statistics("loss", {}, members) == {}
