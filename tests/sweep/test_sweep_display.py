"""The display of a sweep: its plan, its progress, its failed cells."""

import io

import pandas as pd
import pytest
from rich.console import Console

from lnsgd.records.jobs import JobSpec
from lnsgd.runs.writing import Throttle
from lnsgd.sweep.cells import Cell, Cells
from lnsgd.sweep.display import failed_cells, show_plan
from lnsgd.sweep.executors.base import Resources
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import Sweep
from lnsgd.sweep.plan import Plan
from lnsgd.sweep.progress import SweepProgressBar


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def text(console: Console) -> str:
    return " ".join(console.file.getvalue().replace("│", " ").split())


def job(name: str, seeds: range, width: int, replicated: bool = True) -> JobSpec:
    cells = [(f"{name}-{seed}", {"net.width": width, "seed": seed, "lr": 1}) for seed in seeds]
    return JobSpec(name, cells, {}, [], replicated, f"because {width}")


def show(jobs: list[JobSpec], console: Console) -> str:
    cells = Cells({}, tuple(Cell(name, options, {}) for spec in jobs for name, options in spec.cells))
    plan = Plan(cells, frozenset(), tuple(jobs[:1]), tuple(jobs[1:]))
    show_plan(Sweep("trial", (), {}, (), wandb=False), plan, Resources(2, 3e9, gpu=False), console)
    return text(console)


def test_plan_shows_what_is_packed_together_and_why(console):
    printed = show([job("x", range(9), 5), job("y", range(1), 6, replicated=False), job("z", range(1), 7)], console)
    assert printed.startswith(
        "trial: 11 cells, 0 complete; 3 jobs for the other 11, 1 of them begun; 2 at once with 3 GB"
    )
    assert "x 9 seed 0, 1, 2, 3, 4, 5, … (9) width=5 because 5" in printed
    assert "y 1 an ordinary run width=6, seed=0 because 6" in printed
    assert "z 1 a replica width=7, seed=0 because 7" in printed
    assert "lr" not in printed  # it has the same value in all cells


def test_one_cell_is_singular(console):
    assert show([job("x", range(1), 5)], console).startswith("trial: 1 cell, 0 complete; 1 job for the other 1, 1 of")


def test_many_jobs_are_grouped_by_kind(console):
    jobs = [job(f"j{number}", range(3), 5) for number in range(50)] + [job("last", range(2), 6)]
    printed = show(jobs, console)
    assert "50 3 3 seed because 5" in printed
    assert "1 2 2 seed because 6" in printed
    assert "j17" not in printed


def test_failed_cells_are_grouped_by_reason(console):
    rows = [
        ("failed", "no memory", 2, "x"),
        ("failed", "no memory", 3, "y"),
        ("done", "", 1, "z"),
        ("failed", "bad", 1, "w"),
    ]
    console.print(failed_cells(pd.DataFrame(rows, columns=["status", "reason", "attempts", "job"]).to_dict("list")))
    printed = text(console)
    assert "2 3 no memory x, y" in printed
    assert "1 1 bad w" in printed
    assert "z" not in printed


def test_progress_bar_adds_up_finished_cells_and_fractions(tmp_path, console, monkeypatch):
    monkeypatch.setattr(Throttle, "due", lambda self: True)
    folder = SweepFolder(tmp_path)
    folder.results.mkdir()
    folder.progress("x").parent.mkdir()
    bar = SweepProgressBar(folder, [job("x", range(4), 5), job("y", range(2), 6)], console)

    def completed() -> tuple[float, str]:
        bar.refresh_if_due()
        (task,) = bar._bar.tasks
        return task.completed, task.description

    with bar:
        assert completed() == (0, "2 jobs left")
        folder.progress("x").write_text('{"done": 0.5}\n')
        assert completed() == (2, "2 jobs left")
        folder.result("y").touch()
        assert completed() == (4, "1 job left")
        folder.result("x").touch()
    assert completed() == (6, "0 jobs left")
    assert "6/6 cells" in text(console)
