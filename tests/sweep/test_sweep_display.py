"""What is printed of a sweep: its plan, its progress, its failures."""

import io

import pandas as pd
import pytest
from rich.console import Console

from lnsgd.sweep.cells import Cell, Cells
from lnsgd.sweep.display import Board, failed_cells, show_plan
from lnsgd.sweep.executor import Resources
from lnsgd.sweep.folder import JobSpec, SweepFolder
from lnsgd.sweep.grid import Sweep
from lnsgd.sweep.plan import Plan
from lnsgd.writing import Throttle


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def text(console: Console) -> str:
    return " ".join(console.file.getvalue().replace("│", " ").split())


def job(name: str, seeds: range, width: int, replicated: bool = True) -> JobSpec:
    cells = [(f"{name}-{seed}", {"net.width": width, "seed": seed, "lr": 1}) for seed in seeds]
    return JobSpec(name, cells, {}, [], replicated, f"because {width}")


def shown(jobs: list[JobSpec], console: Console) -> str:
    cells = Cells({}, tuple(Cell(name, options, {}) for spec in jobs for name, options in spec.cells))
    plan = Plan(cells, frozenset(), tuple(jobs[:1]), tuple(jobs[1:]))
    show_plan(Sweep("trial", (), {}, (), wandb=False), plan, Resources(2, 3e9, gpu=False), console)
    return text(console)


def test_a_plan_says_what_is_packed_with_what_and_why(console):
    printed = shown([job("x", range(9), 5), job("y", range(1), 6, replicated=False), job("z", range(1), 7)], console)
    assert printed.startswith(
        "trial: 11 cells, 0 complete; 3 jobs for the other 11, 1 of them begun; 2 at once with 3 GB"
    )
    assert "x 9 seed 0, 1, 2, 3, 4, 5, … (9) width=5 because 5" in printed
    assert "y 1 an ordinary run width=6, seed=0 because 6" in printed
    assert "z 1 a replica width=7, seed=0 because 7" in printed
    assert "lr" not in printed  # the same everywhere


def test_one_is_no_plural(console):
    assert shown([job("x", range(1), 5)], console).startswith("trial: 1 cell, 0 complete; 1 job for the other 1, 1 of")


def test_many_jobs_are_counted_by_kind(console):
    jobs = [job(f"j{number}", range(3), 5) for number in range(50)] + [job("last", range(2), 6)]
    printed = shown(jobs, console)
    assert "50 3 3 seed because 5" in printed
    assert "1 2 2 seed because 6" in printed
    assert "j17" not in printed


def test_failures_are_grouped_by_their_reason(console):
    rows = [
        ("failed", "no memory", 2, "x"),
        ("failed", "no memory", 3, "y"),
        ("done", "", 1, "z"),
        ("failed", "bad", 1, "w"),
    ]
    console.print(failed_cells(pd.DataFrame(rows, columns=["status", "reason", "attempts", "job"])))
    printed = text(console)
    assert "2 3 no memory x, y" in printed
    assert "1 1 bad w" in printed
    assert "z" not in printed


def test_the_board_counts_cells_of_jobs_that_have_ended_and_parts_of_the_others(tmp_path, console, monkeypatch):
    monkeypatch.setattr(Throttle, "due", lambda self: True)
    folder = SweepFolder(tmp_path)
    folder.pieces.mkdir()
    folder.progress("x").parent.mkdir()
    board = Board(folder, [job("x", range(4), 5), job("y", range(2), 6)], console)

    def completed() -> tuple[float, str]:
        board.watch()
        (task,) = board._bar.tasks
        return task.completed, task.description

    with board:
        assert completed() == (0, "2 jobs left")
        folder.progress("x").write_text('{"done": 0.5}\n')
        assert completed() == (2, "2 jobs left")
        folder.piece("y").touch()
        assert completed() == (4, "1 job left")
        folder.piece("x").touch()
    assert completed() == (6, "0 jobs left")
    assert "6/6 cells" in text(console)
