"""The table of a sweep whose files are made by hand."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lnsgd.cli import main
from lnsgd.records.cells import COLUMNS, write_planned
from lnsgd.records.changes import Change, append_change
from lnsgd.records.jobs import JobSpec
from lnsgd.report.sweep_section import read_sweep
from lnsgd.sweep import changed_runs, load, load_trajectories
from lnsgd.sweep.cells import Cell
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.results import complete_cells, failed_jobs

CELLS = [Cell(name, {"p": p, "widths": [5, p]}, {}) for p, name in enumerate("abcd")]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    made = SweepFolder(tmp_path / "out")
    write_planned([(cell.name, cell.options) for cell in CELLS], made.planned)
    made.results.mkdir()
    made.trajectories("any").parent.mkdir()
    return made


def write_result(folder: SweepFolder, job: str, written: int, status: str = "done", **losses: float) -> None:
    """Write the result of a job and, unless it has failed, trajectories of two steps."""
    rows = [{"cell": cell, "options": json.dumps({"p": 0}), "loss": loss} for cell, loss in losses.items()]
    columns = {**dict.fromkeys(COLUMNS), "status": status, "attempts": 1, "job": job}
    pd.DataFrame([{**columns, **row} for row in rows]).astype(COLUMNS).to_parquet(folder.result(job), index=False)
    os.utime(folder.result(job), (written, written))
    if status == "failed":
        return
    numbers = {"epoch": 0, "split": "train", "measure": "loss", "layer": "", "stderr": np.nan}
    table = [{"cell": cell, "step": s, "value": v, **numbers} for cell, v in losses.items() for s in (0, 9)]
    pd.DataFrame(table).to_parquet(folder.trajectories(job), index=False)


def test_rows_have_options_and_follow_the_grid(folder):
    write_result(folder, "y", 1, d=4.0, b=2.0)
    write_result(folder, "x", 2, a=1.0)
    found = load(folder.path)
    assert found.cell.tolist() == ["a", "b", "c", "d"]
    assert found.p.tolist() == [0, 1, 2, 3]
    assert found.widths.tolist() == [[5, 0], [5, 1], [5, 2], [5, 3]]
    assert found.status.tolist() == ["done", "done", "missing", "done"]
    assert found.loss.tolist()[:2] == [1.0, 2.0]
    assert list(found)[3:-1] == list(COLUMNS)
    assert {name: str(found[name].dtype) for name in COLUMNS} == COLUMNS


def test_all_cells_are_missing_at_first(folder):
    found = load(folder.path)
    assert found.status.tolist() == ["missing"] * 4
    assert found.reason.tolist() == [""] * 4
    assert load_trajectories(folder.path).empty


def test_cell_is_running_while_its_job_is_locked(folder):
    for name, cells in (("x", "ab"), ("y", "c")):
        folder.write_job(JobSpec(name, [(cell, {}) for cell in cells], {}, [], replicated=True, reason=""))
    write_result(folder, "z", 1, d=1.0)
    with folder.running("x"):
        assert load(folder.path).status.tolist() == ["running", "running", "missing", "done"]
    assert load(folder.path).status.tolist() == ["missing", "missing", "missing", "done"]


def test_cell_that_ran_twice_has_one_row_and_one_trajectory(folder):
    """The earlier result counts, although the name of its job comes last."""
    write_result(folder, "z", 1, a=1.0, b=2.0)
    write_result(folder, "y", 2, b=22.0, c=3.0)
    found = load(folder.path).dropna(subset="job")
    assert found[["cell", "job", "loss"]].to_numpy().tolist() == [["a", "z", 1.0], ["b", "z", 2.0], ["c", "y", 3.0]]
    numbers = load_trajectories(folder.path)
    assert sorted(numbers[["cell", "step", "value"]].itertuples(index=False, name=None)) == [
        *(("a", 0, 1.0), ("a", 9, 1.0)),
        *(("b", 0, 2.0), ("b", 9, 2.0)),
        *(("c", 0, 3.0), ("c", 9, 3.0)),
    ]


def test_successful_run_counts_before_a_failed_one(folder):
    write_result(folder, "x", 1, "failed", a=np.nan)
    write_result(folder, "y", 2, "diverged", a=2.0)
    assert load(folder.path)[["status", "job"]].iloc[0].tolist() == ["diverged", "y"]
    assert load_trajectories(folder.path).value.tolist() == [2.0, 2.0]


def test_cells_not_in_the_grid_are_left_out(folder):
    write_result(folder, "x", 1, a=1.0, old=5.0)
    assert load(folder.path).cell.tolist() == ["a", "b", "c", "d"]
    assert set(load_trajectories(folder.path).cell) == {"a"}


def test_unfinished_file_is_not_a_result(folder):
    write_result(folder, "x", 1, a=1.0)
    (folder.results / ".y.parquet.12.part").write_bytes(b"PAR1")
    (folder.results / ".y.parquet").write_bytes(b"PAR1")
    assert load(folder.path).status.tolist() == ["done", "missing", "missing", "missing"]
    assert complete_cells(folder, {}) == {"a"}


def test_complete_cells_and_failed_jobs_are_found(folder):
    write_result(folder, "x", 1, a=1.0, b=1.0)
    write_result(folder, "y", 1, "failed", c=1.0)
    assert complete_cells(folder, {}) == {"a", "b", "c"}
    assert complete_cells(folder, {}, except_jobs=["y"]) == {"a", "b"}
    assert complete_cells(folder, {"x": ["from", "memory"], "other": ["d"]}) == {"from", "memory", "c"}
    assert failed_jobs(folder) == ["y"]


def test_folder_without_sweep_is_refused(tmp_path):
    for read in (load, load_trajectories):
        with pytest.raises(ValueError, match=r"does not hold a sweep; give the folder that `lnsgd sweep` wrote"):
            read(tmp_path)


def change(folder: SweepFolder, job: str, cells: list[str], step: int, after: float) -> None:
    """Record that the run of a job was resumed with another level of noise."""
    folder.job(job).parent.mkdir(exist_ok=True)
    folder.write_job(JobSpec(job, [(cell, {}) for cell in cells], {}, [], len(cells) > 1, ""))
    folder.run(job).path.mkdir(parents=True, exist_ok=True)
    append_change(folder.run(job), step, [Change("model.init_args.label_noise.init_args.p", 0.1, after)], {"a": 1})


def test_runs_that_were_resumed_with_other_options_are_named(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    write_result(folder, "x", 1, a=1.0)
    write_result(folder, "y", 1, b=2.0, c=3.0)
    assert changed_runs(folder.path) == []
    change(folder, "x", ["a"], 1_000, 0.9)
    change(folder, "y", ["b", "c"], 20, 0.5)
    change(folder, "y", ["b", "c"], 30, 0.7)
    expected = [
        f"{folder.run(job).path} ({cells}): options changed from step {step} on: "
        f"model.label_noise.p (0.1 in the run, {after} now)"
        for job, cells, step, after in (
            ("x", "cell a", "1,000", 0.9),
            ("y", "2 cells", "20", 0.5),
            ("y", "2 cells", "30", 0.7),
        )
    ]
    assert changed_runs(folder.path) == expected
    main(["table", str(folder.path)])
    assert capsys.readouterr().out.splitlines()[-3:] == expected
    main(["table", str(folder.path), "--csv", "-"])
    printed = capsys.readouterr()
    assert printed.err.splitlines() == expected
    assert printed.out.splitlines()[0].startswith("cell,p,widths,status")
    assert read_sweep(folder.path).notes[-3:] == [f"{line}." for line in expected]


def test_a_damaged_record_of_changes_is_named(folder):
    change(folder, "x", ["a"], 1_000, 0.9)
    folder.run("x").changes.write_text("{")
    with pytest.raises(ValueError, match=r"changes\.json"):
        changed_runs(folder.path)


def test_many_changes_are_counted(folder, capsys):
    for step in range(13):
        change(folder, "x", ["a"], step, 0.9)
    main(["table", str(folder.path)])
    assert capsys.readouterr().out.splitlines()[-1] == "… and 3 more, see changes.json of each run"
    assert read_sweep(folder.path).notes[-1] == "… and 3 more."
