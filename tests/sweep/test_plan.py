"""Plans: cells that have a row do not run again, and jobs that were started keep their packing."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lnsgd.sweep.config_reader import ConfigReader
from lnsgd.sweep.executors.base import Resources
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import Sweep, read_sweep
from lnsgd.sweep.plan import Plan, make_plan, pack_cells
from lnsgd.sweep.results import complete_cells
from tests.sweep.small_sweeps import write_sweep

GRID = {"model.net.widths": [[784, 5, 10], [784, 6, 10]], "model.label_noise.p": [0.0, 0.1]}


_resolved: dict[tuple[str, str], Any] = {}


def cached_reader(sweep: Sweep, base: str):
    """Resolve each config only once for all tests, because that takes long."""

    def read(options):
        key = base, json.dumps({**sweep.options, **options})
        if key not in _resolved:
            _resolved[key] = ConfigReader(sweep)(options)
        return _resolved[key]

    return read


class Planner:
    """Plans a sweep of two widths, two noise levels and some seeds in one folder."""

    def __init__(self, folder: Path) -> None:
        self.source, self.folder = folder, SweepFolder(folder / "out")

    def __call__(self, grid=GRID, seeds=2, at_once=4, again=(), **given) -> Plan:
        self.sweep = read_sweep(write_sweep(self.source, grid=grid, seeds=seeds, **given))
        return self.plan_again(at_once, again)

    def plan_again(self, at_once=4, again=()) -> Plan:
        """Plan the same sweep with its present base config."""
        read = cached_reader(self.sweep, self.sweep.base[0].read_text())
        packed = pack_cells(self.sweep, read, Resources(at_once, 8e9, gpu=False))
        return make_plan(self.sweep, packed, self.folder, again)

    def complete(self, job, status="done") -> None:
        """Write the columns of a job's result that planning reads."""
        self.folder.results.mkdir(parents=True, exist_ok=True)
        rows = [{"cell": name, "status": status} for name, _ in job.cells]
        pd.DataFrame(rows).to_parquet(self.folder.result(job.name))


@pytest.fixture
def plan(tmp_path) -> Planner:
    return Planner(tmp_path)


def cells_of(jobs) -> list[str]:
    return sorted(name for job in jobs for name, _ in job.cells)


def test_all_jobs_are_new_at_first(plan):
    found = plan()
    assert (len(found.cells.cells), found.complete, found.begun) == (8, frozenset(), ())
    assert [len(job.cells) for job in found.new] == [2, 2, 2, 2]  # as many jobs as run at once
    assert cells_of(found.jobs) == sorted(cell.name for cell in found.cells.cells)
    assert not plan.folder.path.exists()


def test_job_has_arguments_of_fit(plan):
    job = plan(at_once=1, options={"trainer.max_steps": 5}).new[1]
    assert job.replicated
    assert job.arguments == [
        *("--trainer.max_steps=5", "--model.net.widths=[784, 6, 10]", "--model.label_noise.p=0.0"),
        *("--seed_everything=0", "--replicas.seeds=[0, 1]", "--replicas.noise=[0.0, 0.1]", "--replicas.lr=[0.1]"),
        "--replicas.subset=[100]",
    ]
    assert list(job.configs) == [str(plan.source / "base.yaml")]
    assert [options["seed_everything"] for _, options in job.cells] == [0, 1, 0, 1]


def test_recorded_job_is_read_unchanged(plan):
    for job in plan().jobs:
        plan.folder.write_job(job)
        assert plan.folder.read_job(job.name) == job


def test_cells_with_rows_are_left_out(plan):
    before = plan().new
    plan.complete(before[1])
    after = plan()
    assert after.complete == {name for name, _ in before[1].cells}
    assert after.new == (before[0], *before[2:])


def test_further_seeds_are_added(plan):
    for job in plan().new:
        plan.complete(job)
    more = plan(seeds=3)
    assert len(more.complete) == 8
    assert sorted(options["seed_everything"] for job in more.new for _, options in job.cells) == [2] * 4


def test_cells_not_in_the_grid_do_not_count(plan):
    for job in plan().new:
        plan.complete(job)
    fewer = plan(seeds=1)
    assert (len(fewer.cells.cells), len(fewer.complete), fewer.jobs) == (4, 4, ())


def test_started_job_keeps_its_packing(plan):
    begun, rest = plan().new[0], plan().new[1:]
    for job in (begun, *rest):
        plan.folder.write_job(job)
    plan.folder.count_attempt(begun.name)
    after = plan(at_once=1)
    assert after.begun == (begun,)
    assert cells_of(after.new) == cells_of(rest)
    assert len(after.new) < len(rest)  # the others were not started, and are packed for one job at a time


def test_job_with_a_complete_cell_is_packed_anew(plan):
    whole, part = plan(at_once=1).new[0], plan(at_once=4).new[0]
    assert set(cells_of([part])) < set(cells_of([whole]))
    plan.folder.write_job(whole)
    plan.folder.count_attempt(whole.name)
    plan.complete(part)
    after = plan(at_once=1)
    assert after.begun == ()
    assert len(cells_of(after.jobs)) == 8 - len(part.cells)


def test_jobs_of_another_sweep_at_work_keep_their_packing(plan):
    theirs = plan(at_once=4).new
    for job in theirs:
        plan.folder.write_job(job)
    with plan.folder.working():
        assert {job.name for job in plan(at_once=1).begun} == {job.name for job in theirs}
    assert plan(at_once=1).begun == ()


def test_job_that_ends_during_planning_is_not_packed_anew(plan, monkeypatch):
    """Two jobs of another sweep at work, which would be packed as one, end after the rows were read."""
    theirs = plan(at_once=4).new
    for job in theirs:
        plan.folder.write_job(job)

    def complete_two_jobs(*given):
        found = complete_cells(*given)
        plan.complete(theirs[0])
        plan.complete(theirs[1])
        return found

    monkeypatch.setattr("lnsgd.sweep.plan.complete_cells", complete_two_jobs)
    with plan.folder.working():
        assert {job.name for job in plan(at_once=1).jobs} == {job.name for job in theirs}


def test_job_to_be_repeated_is_packed_anew(plan):
    failed = plan(at_once=4).new[0]
    plan.folder.write_job(failed)
    plan.folder.count_attempt(failed.name)
    plan.complete(failed, "failed")
    assert len(plan(at_once=1).complete) == 2
    again = plan(at_once=1, again=[failed.name])
    assert (again.complete, again.begun) == (frozenset(), ())


def test_kept_job_uses_the_present_config(plan):
    job = plan().new[0]
    plan.folder.write_job(job)
    plan.folder.count_attempt(job.name)
    config = plan.source / "base.yaml"
    after = plan()
    config.write_text(config.read_text() + "# a comment\n")
    with pytest.raises(ValueError, match=r"base.yaml has changed since the sweep was planned"):
        after.begun[0].check_configs()
    (kept,) = plan.plan_again().begun
    kept.check_configs()
    assert kept.name == job.name


def test_wandb_does_not_change_cells(plan):
    without, with_it = plan(), plan(wandb=True)
    assert [job.name for job in without.new] == [job.name for job in with_it.new]
    *same, logger = with_it.new[0].arguments
    assert same == without.new[0].arguments
    name, _, value = logger.partition("=")
    assert name == "--trainer.logger"
    assert json.loads(value) == {
        "class_path": "lnsgd.loggers.WandbLogger",
        "dict_kwargs": {"group": "small", "name": with_it.new[0].name, "job_type": "train", "tags": ["small"]},
    }


def test_kept_job_uses_the_present_options_of_its_cells(plan):
    """The base config said 20 steps. Now it says 30 and the sweep sets 20: the same cells by other arguments."""
    job = plan(at_once=1).new[1]
    plan.folder.write_job(job)
    plan.folder.count_attempt(job.name)
    config = plan.source / "base.yaml"
    assert "max_steps: 20\n" in config.read_text()
    plan.sweep = read_sweep(write_sweep(plan.source, grid=GRID, seeds=2, options={"trainer.max_steps": 20}))
    config.write_text(config.read_text().replace("max_steps: 20\n", "max_steps: 30\n"))
    (kept,) = plan.plan_again(at_once=1).begun
    assert (kept.name, kept.cells, kept.replicated) == (job.name, job.cells, job.replicated)
    assert kept.arguments == ["--trainer.max_steps=20", *job.arguments]


@pytest.mark.parametrize("seeds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_planning_many_cells_resolves_few_configs(seeds, plan):
    """Few configs are resolved and one structure is built, whatever the number of cells."""
    grid = {
        "trainer.max_steps": list(range(10, 20)),
        "data.corrupted_fraction": [fraction / 10 for fraction in range(10)],
        "data.eval_batch_size": list(range(100, 110)),
        "model.label_noise.p": [level / 10 for level in range(10)],
    }
    sweep = read_sweep(write_sweep(plan.source, grid=grid, seeds=seeds))
    read = ConfigReader(sweep)
    calls = []

    def counted(options):
        calls.append(options)
        return read(options)

    found = make_plan(sweep, pack_cells(sweep, counted, Resources(4, 8e9, gpu=False)), plan.folder)
    assert (len(found.cells.cells), len(found.new)) == (10_000 * seeds, 1_000)
    assert {len(job.cells) for job in found.new} == {10 * seeds}
    assert len(calls) == 1 + 4 * 9 + (seeds - 1) + 1
