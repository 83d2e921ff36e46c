"""The table of sweeps whose files were made by hand."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lnsgd.sweep import load, load_trajectories
from lnsgd.sweep.cells import Cell
from lnsgd.sweep.folder import JobSpec, SweepFolder
from lnsgd.sweep.table import COLUMNS, complete_cells, failed_jobs, write_planned

CELLS = [Cell(name, {"p": p, "widths": [5, p]}, {}) for p, name in enumerate("abcd")]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    made = SweepFolder(tmp_path / "out")
    write_planned(made, CELLS)
    made.pieces.mkdir()
    made.trajectories("any").parent.mkdir()
    return made


def piece(folder: SweepFolder, job: str, written: int, status: str = "done", **losses: float) -> None:
    """A job's piece, and its trajectories of two steps unless it has failed."""
    rows = [{"cell": cell, "options": json.dumps({"p": 0}), "loss": loss} for cell, loss in losses.items()]
    columns = {**dict.fromkeys(COLUMNS), "status": status, "attempts": 1, "job": job}
    pd.DataFrame([{**columns, **row} for row in rows]).astype(COLUMNS).to_parquet(folder.piece(job), index=False)
    os.utime(folder.piece(job), (written, written))
    if status == "failed":
        return
    numbers = {"epoch": 0, "split": "train", "measure": "loss", "layer": "", "stderr": np.nan}
    table = [{"cell": cell, "step": s, "value": v, **numbers} for cell, v in losses.items() for s in (0, 9)]
    pd.DataFrame(table).to_parquet(folder.trajectories(job), index=False)


def test_rows_are_in_the_grids_order_with_their_options(folder):
    piece(folder, "y", 1, d=4.0, b=2.0)
    piece(folder, "x", 2, a=1.0)
    found = load(folder.path)
    assert found.cell.tolist() == ["a", "b", "c", "d"]
    assert found.p.tolist() == [0, 1, 2, 3]
    assert found.widths.tolist() == [[5, 0], [5, 1], [5, 2], [5, 3]]
    assert found.status.tolist() == ["done", "done", "missing", "done"]
    assert found.loss.tolist()[:2] == [1.0, 2.0]
    assert list(found)[3:-1] == list(COLUMNS)
    assert {name: str(found[name].dtype) for name in COLUMNS} == COLUMNS


def test_nothing_has_run_yet(folder):
    found = load(folder.path)
    assert found.status.tolist() == ["missing"] * 4
    assert found.reason.tolist() == [""] * 4
    assert load_trajectories(folder.path).empty


def test_a_cell_runs_while_its_job_is_locked(folder):
    for name, cells in (("x", "ab"), ("y", "c")):
        folder.write_job(JobSpec(name, [(cell, {}) for cell in cells], {}, [], replicated=True, reason=""))
    piece(folder, "z", 1, d=1.0)
    with folder.running("x"):
        assert load(folder.path).status.tolist() == ["running", "running", "missing", "done"]
    assert load(folder.path).status.tolist() == ["missing", "missing", "missing", "done"]


def test_a_cell_that_was_run_twice_is_one_row_and_one_trajectory(folder):
    """That which was written first, though its job comes last."""
    piece(folder, "z", 1, a=1.0, b=2.0)
    piece(folder, "y", 2, b=22.0, c=3.0)
    found = load(folder.path).dropna(subset="job")
    assert found[["cell", "job", "loss"]].to_numpy().tolist() == [["a", "z", 1.0], ["b", "z", 2.0], ["c", "y", 3.0]]
    numbers = load_trajectories(folder.path)
    assert sorted(numbers[["cell", "step", "value"]].itertuples(index=False, name=None)) == [
        *(("a", 0, 1.0), ("a", 9, 1.0)),
        *(("b", 0, 2.0), ("b", 9, 2.0)),
        *(("c", 0, 3.0), ("c", 9, 3.0)),
    ]


def test_a_run_that_succeeded_counts_before_one_that_failed(folder):
    piece(folder, "x", 1, "failed", a=np.nan)
    piece(folder, "y", 2, "diverged", a=2.0)
    assert load(folder.path)[["status", "job"]].iloc[0].tolist() == ["diverged", "y"]
    assert load_trajectories(folder.path).value.tolist() == [2.0, 2.0]


def test_cells_that_are_wanted_no_more_are_left_out(folder):
    piece(folder, "x", 1, a=1.0, old=5.0)
    assert load(folder.path).cell.tolist() == ["a", "b", "c", "d"]
    assert set(load_trajectories(folder.path).cell) == {"a"}


def test_a_piece_that_is_being_written_is_no_piece(folder):
    piece(folder, "x", 1, a=1.0)
    (folder.pieces / ".y.parquet.12.part").write_bytes(b"PAR1")
    (folder.pieces / ".y.parquet").write_bytes(b"PAR1")
    assert load(folder.path).status.tolist() == ["done", "missing", "missing", "missing"]
    assert complete_cells(folder, {}) == {"a"}


def test_which_cells_are_complete_and_which_jobs_failed(folder):
    piece(folder, "x", 1, a=1.0, b=1.0)
    piece(folder, "y", 1, "failed", c=1.0)
    assert complete_cells(folder, {}) == {"a", "b", "c"}
    assert complete_cells(folder, {}, but=["y"]) == {"a", "b"}
    assert complete_cells(folder, {"x": ["from", "memory"], "other": ["d"]}) == {"from", "memory", "c"}
    assert failed_jobs(folder) == ["y"]


def test_there_is_no_sweep(tmp_path):
    for read in (load, load_trajectories):
        with pytest.raises(ValueError, match=r"holds no sweep; give the folder that `lnsgd sweep` wrote"):
            read(tmp_path)
