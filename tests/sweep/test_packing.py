"""Packing: every cell runs once, together with the cells that can be replicas of the same run."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsgd.replicas import ReplicaGrid
from lnsgd.sweep.cells import Cell
from lnsgd.sweep.packing import Capacity, Job, Setting, cover_by_boxes, pack, split_box

SEED, NOISE = "seed_everything", "model.init_args.label_noise.init_args.p"
LR, SUBSET = "model.init_args.optimizer.init_args.lr", "data.init_args.subset"
WIDTH = "model.init_args.net.init_args.widths"

FIRST = {SEED: 0, "model.init_args.seed": 0, NOISE: 0.0, LR: 0.1, SUBSET: None, WIDTH: [5]}
LIMITED_BY_STEPS = {"trainer.max_epochs": -1, "trainer.max_steps": 100, "data.init_args.batch_size": 8}
FIRST |= LIMITED_BY_STEPS


def cells(widths=((5,),), seeds=(0,), noise=(0.0,), lr=(0.1,), subset=(None,)) -> list[Cell]:
    found = []
    for number, (w, s, p, r, m) in enumerate(product(widths, seeds, noise, lr, subset)):
        config = {**FIRST, SEED: s, "model.init_args.seed": s, NOISE: p, LR: r, SUBSET: m, WIDTH: list(w)}
        changes = {path: value for path, value in config.items() if value != FIRST[path]}
        found.append(Cell(f"{number:016x}", {}, changes))
    return found


def unlimited(cell: Cell) -> Capacity:
    return Capacity(1_000, "fits")


def replicas(job: Job) -> list[Setting]:
    """Return the settings of the replicas of a job in the order of `ReplicaGrid`."""
    assert job.settings is not None
    lists = dict(job.settings)
    made = ReplicaGrid(**lists).replicas(0)
    return [Setting(r.seed, r.noise, r.lr, r.subset) for r in made]


def settings(job: Job) -> list[Setting]:
    """Return the settings of the cells of a job."""
    configs = [{**FIRST, **cell.changes} for cell in job.cells]
    return [Setting(c[SEED], c[NOISE], c[LR], c[SUBSET]) for c in configs]


def test_full_grid_of_packable_settings_is_one_job():
    wanted = cells(seeds=range(3), noise=[0.0, 0.1], lr=[0.1, 0.2], subset=[10, 20])
    (job,) = pack(FIRST, wanted, unlimited)
    assert len(job.cells) == 24
    assert replicas(job) == settings(job)


def test_other_settings_need_separate_jobs():
    wanted = cells(widths=[(5,), (6,)], seeds=range(2))
    jobs = pack(FIRST, wanted, unlimited)
    assert [[cell.name for cell in job.cells] for job in jobs] == [
        [c.name for c in wanted[:2]],
        [c.name for c in wanted[2:]],
    ]


def test_replicas_match_cells_if_the_grid_is_incomplete():
    wanted = cells(seeds=range(4), noise=[0.0, 0.1, 0.2], subset=[10, 20])
    kept = [cell for number, cell in enumerate(wanted) if number not in (0, 7, 8, 13)]
    jobs = pack(FIRST, kept, unlimited)
    for job in jobs:
        assert replicas(job) == settings(job)
    assert sorted(cell.name for job in jobs for cell in job.cells) == sorted(cell.name for cell in kept)


def test_missing_subset_is_not_a_setting():
    (job,) = pack(FIRST, cells(seeds=range(2)), unlimited)
    assert job.settings == {"seeds": [0, 1], "noise": [0.0], "lr": [0.1]}


def test_memory_limits_a_job_and_seeds_stay_together():
    jobs = pack(FIRST, cells(seeds=range(5), noise=[0.0, 0.1, 0.2]), lambda cell: Capacity(10, "10 fit into memory"))
    assert [len(job.cells) for job in jobs] == [10, 5]
    assert all(set(job.settings["seeds"]) == set(range(5)) for job in jobs)
    assert {job.reason for job in jobs} == {"10 fit into memory"}


def test_cell_that_cannot_be_a_replica_runs_alone_with_a_reason():
    capacities = {"[5]": Capacity(100, "fits"), "[6]": Capacity(1, "batch normalization")}

    def capacity_of(cell: Cell) -> Capacity:
        return capacities[str(cell.changes.get(WIDTH, [5]))]

    jobs = pack(FIRST, cells(widths=[(5,), (6,)], seeds=range(3)), capacity_of)
    assert [(len(job.cells), job.settings is None, job.reason) for job in jobs] == [
        (3, False, "fits"),
        *[(1, True, "batch normalization")] * 3,
    ]


def test_single_cell_is_a_replica_only_if_that_is_faster():
    wanted = cells(widths=[(5,), (6,)])
    for alone, most in ((False, 100), (True, 100), (True, 1)):
        jobs = pack(FIRST, wanted, lambda cell: Capacity(most, "fits", alone))  # noqa: B023
        assert [job.settings is not None for job in jobs] == [alone, alone]
        assert all(job.settings is None or replicas(job) == settings(job) for job in jobs)


def test_capacity_of_one_makes_each_cell_a_replica():
    jobs = pack(FIRST, cells(seeds=range(2), noise=[0.0, 0.1]), lambda cell: Capacity(1, "few", replicates_single=True))
    assert [(len(job.cells), replicas(job) == settings(job)) for job in jobs] == [(1, True)] * 4


STEPS_DEPEND_ON_SIZE = {
    "epochs": {"trainer.max_epochs": 3},
    "epochs-and-steps": {"trainer.max_epochs": 3, "trainer.max_steps": 100},
    "no-limit": {"trainer.max_steps": -1},
    "whole-batches": {"data.init_args.batch_size": None},
}


@pytest.mark.parametrize("limits", STEPS_DEPEND_ON_SIZE.values(), ids=STEPS_DEPEND_ON_SIZE)
def test_subsets_are_separate_if_steps_depend_on_their_size(limits):
    """An epoch of replicas is an epoch of the largest training set."""
    wanted = cells(seeds=range(2), subset=[10, 20])
    jobs = pack({**FIRST, **limits}, wanted, unlimited)
    assert [len(job.cells) for job in jobs] == [2, 2]
    assert all(len({cell.changes[SUBSET] for cell in job.cells}) == 1 for job in jobs)


def test_job_names_are_unique_and_stable():
    wanted = cells(seeds=range(4))
    (whole,), (part,) = pack(FIRST, wanted, unlimited), pack(FIRST, wanted[1:], unlimited)
    assert whole.name == pack(FIRST, wanted, unlimited)[0].name
    assert whole.name != part.name


def test_ordinary_run_and_single_replica_have_different_names():
    """Neither can resume from a checkpoint of the other."""
    (replica,) = pack(FIRST, cells(), lambda _: Capacity(1, "", replicates_single=True))
    (ordinary,) = pack(FIRST, cells(), lambda _: Capacity(1, "", replicates_single=False))
    assert (replica.settings is None, ordinary.settings is None) == (False, True)
    assert replica.name != ordinary.name


FEW = st.sampled_from([0, 1, 2])


@given(st.sets(st.tuples(FEW, FEW, FEW, FEW), min_size=1, max_size=40), st.integers(1, 12))
def test_boxes_and_their_parts_hold_each_setting_once(chosen, most):
    wanted = [Setting(*setting) for setting in sorted(chosen)]
    parts = [part for box in cover_by_boxes(wanted) for part in split_box(box, most)]
    held = [Setting(*combination) for part in parts for combination in product(*part)]
    assert sorted(held) == sorted(wanted)
    assert all(np.prod([len(values) for values in part]) <= most for part in parts)


@pytest.mark.parametrize("sizes", [(2, 3, 1, 4), (5, 1, 1, 1)])
def test_full_grid_is_one_box(sizes):
    lists = [tuple(range(size)) for size in sizes]
    assert cover_by_boxes([Setting(*combination) for combination in product(*lists)]) == [tuple(lists)]
