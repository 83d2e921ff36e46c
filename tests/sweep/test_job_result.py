"""Results of jobs, from run folders made by hand."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from lnsgd import __version__
from lnsgd.records.jobs import Attempts, JobSpec
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.job_result import write_failed, write_result

HEAD = "replica,seed,noise,lr,subset,diverged_at,stopped_at,stopped_by\n"


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path)


def job(cells: int, replicated: bool = True) -> JobSpec:
    return JobSpec("j", [(f"c{i}", {"seed": i}) for i in range(cells)], {}, [], replicated, "why")


def finish(folder: SweepFolder, replicas: str | None = None, metrics: str | None = None, **ended) -> None:
    """Write a run of 20 steps and 6 seconds; the loss of replica n goes from 2 + 100n to 1 + 100n."""
    run = folder.run("j")
    run.path.mkdir(parents=True)
    versions = {"lnsgd": "1.2", "torch": "3.4"}
    record = {"epochs": 4, "steps": 20, "seconds": 6.0, "device": "x", "versions": versions, **ended}
    run.finished.write_text(json.dumps(record))
    if replicas is not None:
        run.replicas.write_text(HEAD + replicas)
    if metrics is not None:
        run.metrics.write_text(metrics)
    number = len(replicas.splitlines()) if replicas else 1
    rows = [
        {"step": step, "epoch": step // 5, "replica": r, "split": split, "measure": "loss", "layer": "", "value": v}
        for r in range(number)
        for step, split, v in [(0, "train", 2.0 + 100 * r), (20, "train", 1.0 + 100 * r), (10, "test", 5.0)]
    ]
    measures = pd.DataFrame(rows).assign(stderr=[math.nan, 0.25, math.nan] * number)
    measures.astype({"epoch": "int32", "replica": "int32"}).to_parquet(run.measures, index=False)


def read_result(folder: SweepFolder) -> pd.DataFrame:
    return pd.read_parquet(folder.result("j"))


def test_each_replica_has_a_row(folder):
    finish(folder, "0,0,,,,,,\n1,1,,,,,,\n")
    write_result(folder, job(2), Attempts([0, 0], ["once"]))
    table = read_result(folder)
    assert table.cell.tolist() == ["c0", "c1"]
    assert [json.loads(text) for text in table.options] == [{"seed": 0}, {"seed": 1}]
    assert table["loss/train"].tolist() == [1.0, 101.0]
    assert table["loss/train/stderr"].tolist() == [0.25, 0.25]
    assert table["loss/test"].tolist() == [5.0, 5.0]
    assert "loss/test/stderr" not in table
    same = table[["status", "reason", "steps", "epochs", "seconds", "device", "lnsgd", "torch", "attempts", "job"]]
    assert same.to_numpy().tolist() == [["done", "", 20, 4, 3.0, "x", "1.2", "3.4", 2, "j"]] * 2


def test_trajectories_hold_all_numbers(folder):
    finish(folder, "0,0,,,,,,\n1,1,,,,,,\n")
    write_result(folder, job(2), Attempts([0]))
    table = pd.read_parquet(folder.trajectories("j"))
    columns = ["cell", "step", "epoch", "split", "measure", "layer", "value", "stderr", "which_weights"]
    assert list(table) == columns
    assert table[["cell", "step", "value"]].to_numpy().tolist() == [
        *(["c0", 0, 2.0], ["c0", 20, 1.0], ["c0", 10, 5.0]),
        *(["c1", 0, 102.0], ["c1", 20, 101.0], ["c1", 10, 5.0]),
    ]


def test_status_of_each_replica_is_its_own(folder):
    replicas = "0,0,,,,,12,StopAtLoss\n1,1,,,,,20,limit\n2,2,,,,7,,\n"
    finish(folder, replicas, stopped_by="limit")
    write_result(folder, job(3), Attempts([0]))
    table = read_result(folder)
    assert table.status.tolist() == ["done", "limit", "diverged"]
    assert table.steps.tolist() == [12, 20, 7]
    assert table.reason.tolist() == [
        "stopped by StopAtLoss",
        "the limit of 20 steps came before its stopping rule",
        "diverged at step 7",
    ]
    assert table["loss/train"].isna().tolist() == [False, False, True]


ORDINARY = {
    "no-rule": ({}, None, ("done", "", 20)),
    "rule": ({"stopped_by": "StopAtMargin"}, None, ("done", "stopped by StopAtMargin", 20)),
    "limit": ({"stopped_by": "limit"}, None, ("limit", "the limit of 20 steps came before its stopping rule", 20)),
    "finite": ({}, "step,train/loss\n0,2\n5,\n9,1\n", ("done", "", 20)),
    "diverged": ({}, "step,train/loss\n0,2\n5,\n9,nan\n14,inf\n", ("diverged", "diverged at step 9", 9)),
}


@pytest.mark.parametrize(("ended", "metrics", "row"), ORDINARY.values(), ids=ORDINARY)
def test_ordinary_run_has_one_row(ended, metrics, row, folder):
    finish(folder, metrics=metrics, **ended)
    write_result(folder, job(1, replicated=False), Attempts([0]))
    (found,) = read_result(folder)[["status", "reason", "steps"]].itertuples(index=False, name=None)
    assert found == row


def test_run_without_measures_has_a_row(folder):
    finish(folder)
    folder.run("j").measures.unlink()
    write_result(folder, job(1, replicated=False), Attempts([0]))
    assert read_result(folder).status.tolist() == ["done"]
    assert len(pd.read_parquet(folder.trajectories("j"))) == 0


def test_failed_job_has_a_row_for_each_cell(folder):
    write_failed(folder, job(2), Attempts([0, 0], ["first", "last"]))
    table = read_result(folder)
    assert table[["cell", "status", "reason", "attempts", "job"]].to_numpy().tolist() == [
        ["c0", "failed", "last", 2, "j"],
        ["c1", "failed", "last", 2, "j"],
    ]
    assert table.steps.isna().all()
    assert table.lnsgd.tolist() == [__version__] * 2
    assert not folder.trajectories("j").exists()


def test_failure_without_recorded_error_has_a_reason(folder):
    write_failed(folder, job(1), Attempts([0, 0], []))
    assert read_result(folder).reason.tolist() == ["its process died"]


def test_result_is_written_last(folder):
    """A job that is killed while it writes has no result, so it is not complete."""
    finish(folder, "0,0,,,,,,\n")
    folder.path.joinpath("trajectories").touch()  # not a folder, so it cannot be written to
    with pytest.raises(OSError, match="trajectories"):
        write_result(folder, job(1), Attempts([0]))
    assert not folder.result("j").exists()
