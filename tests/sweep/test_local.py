"""Sweeps on this machine, end to end: what is left, what is run again, and what befalls single jobs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from lnsgd.cli import main
from lnsgd.sweep import load, load_trajectories
from lnsgd.sweep.folder import SweepFolder
from tests.sweep.small_sweeps import ORDINARY, content, write_sweep

LNSGD = str(Path(sys.executable).with_name("lnsgd"))
NET, NOISE, SEED = "model.net.widths", "model.label_noise.p", "seed_everything"


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sweep(path: Path, *options: str, workers: int = 2) -> int:
    """Exit code of ``lnsgd sweep``, which goes to ``out``."""
    try:
        main(["sweep", str(path), "--out", "out", "--workers", str(workers), *options])
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


def befalls(how: str, **arguments) -> dict:
    return {"class_path": "tests.sweep.small_sweeps.Befall", "init_args": {"how": how, **arguments}}


def job_of(cell: str) -> str:
    return load("out").set_index("cell").job[cell]


def test_packed_and_alone_cells_are_the_same_runs(tmp_path, capsys):
    """Kernel replicas, and the same cells as ordinary runs, since a callback of theirs knows nothing of replicas."""
    grid = {NOISE: [0.0, 0.3]}
    assert sweep(write_sweep(tmp_path, grid=grid, seeds=2)) == 0
    packed = load("out")
    assert packed.status.tolist() == ["done"] * 4
    assert packed[[NOISE, SEED]].to_numpy().tolist() == [[0.0, 0], [0.0, 1], [0.3, 0], [0.3, 1]]
    assert packed.job.nunique() == 2
    assert "4 cells: 4 done" in capsys.readouterr().out
    alone_at = tmp_path / "alone"
    main(["sweep", str(write_sweep(alone_at, callbacks=[ORDINARY], grid=grid, seeds=2)), "--out", "alone/out"])
    alone = load("alone/out")
    assert alone.job.nunique() == 4
    assert set(alone.cell).isdisjoint(packed.cell)  # a callback more is another run
    measures = [name for name in packed if name.startswith(("distance", "loss", "error"))]
    assert len(measures) >= 3
    pd.testing.assert_frame_equal(packed[measures], alone[measures], rtol=1e-5)
    assert packed.steps.tolist() == alone.steps.tolist() == [20] * 4
    for folder, table in (("out", packed), ("alone/out", alone)):
        trajectories = load_trajectories(folder)
        last = trajectories[
            (trajectories.step == 20) & (trajectories.measure == "distance_from_init") & (trajectories.layer == "")
        ]
        assert last.set_index("cell").value.to_dict() == table.set_index("cell").distance_from_init.to_dict()


def test_nothing_is_run_again_and_more_seeds_are_added(tmp_path):
    assert sweep(write_sweep(tmp_path, grid={NOISE: [0.1]}, seeds=2)) == 0
    before, folder = load("out"), content(Path("out"))
    assert sweep(write_sweep(tmp_path, grid={NOISE: [0.1]}, seeds=2)) == 0
    assert content(Path("out")) == folder
    assert sweep(write_sweep(tmp_path, grid={NOISE: [0.1]}, seeds=3)) == 0
    after = load("out")
    pd.testing.assert_frame_equal(after[:2], before, check_exact=True)
    assert after.status.tolist() == ["done"] * 3


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    path = write_sweep(tmp_path, grid={NET: [[784, 5, 10], [784, 5, 5, 10]]}, seeds=3)
    before = content(tmp_path)
    assert sweep(path, "--dry-run") == 0
    assert content(tmp_path) == before
    printed = " ".join(capsys.readouterr().out.split())
    assert "small: 6 cells, 0 complete; 2 jobs" in printed
    assert "kernel" in printed
    assert "general" in printed


def test_failures_are_rows_and_the_rest_goes_on(tmp_path, capsys):
    """Seed 1 raises; seed 2 dies by a signal, once; seed 3 dies by it always; seed 4 diverges."""
    mark = tmp_path / "mark"
    callbacks = [befalls("exception", seed=1), befalls("SIGKILL", seed=2, mark=str(mark)), befalls("SIGKILL", seed=3)]
    path = write_sweep(
        tmp_path,
        callbacks=callbacks,
        zip=[{SEED: [0, 1, 2, 3, 4], "model.optimizer.lr": [0.1, 0.1, 0.1, 0.1, 1e30]}],
    )
    assert sweep(path) == 1
    found = load("out")
    assert found.status.tolist() == ["done", "failed", "done", "failed", "diverged"]
    assert found.attempts.tolist() == [1, 2, 2, 2, 1]
    assert found.reason[1] == "RuntimeError: no more of this"
    assert "killed by SIGKILL (out of memory?); see out/logs/" in found.reason[3]
    assert found.reason[4].startswith("diverged at step ")
    assert found.distance_from_init.isna().tolist() == [False, True, False, True, True]
    printed = capsys.readouterr().out
    assert "RuntimeError: no more of this" in " ".join(printed.split())
    assert "2 failed" in printed
    before = content(Path("out"))
    assert sweep(path, "--retries", "3") == 1  # what has failed for good has a row
    assert content(Path("out")) == before


def test_a_replica_that_diverges_leaves_the_others_alone(tmp_path):
    grid = {"model.optimizer.lr": [0.1, 1e30]}
    assert sweep(write_sweep(tmp_path, grid=grid, seeds=2), workers=1) == 0
    found = load("out")
    assert found.job.nunique() == 1
    assert found.status.tolist() == ["done", "done", "diverged", "diverged"]
    assert found.distance_from_init.isna().tolist() == [False, False, True, True]
    assert (found.steps[:2] == 20).all()
    assert (found.steps[2:] < 20).all()


def test_what_has_failed_is_run_again_on_request(tmp_path):
    mark = tmp_path / "mark"
    path = write_sweep(tmp_path, callbacks=[befalls("exception", seed=1, mark=str(mark))], seeds=2)
    assert sweep(path, "--retries", "0") == 1
    before = load("out")
    assert before.status.tolist() == ["done", "failed"]
    assert sweep(path, "--retry-failed") == 0
    after = load("out")
    assert after.status.tolist() == ["done", "done"]
    pd.testing.assert_frame_equal(after[:1], before[:1], check_exact=True)


BAD = {
    "unknown-key": ({"grdi": {}}, "there is no 'grdi' in a sweep"),
    "empty-list": ({"grid": {NOISE: []}}, "model.label_noise.p = []"),
    "unknown-option": ({"grid": {"model.label_noise.q": [1]}}, "no option 'q'"),
    "wrong-type": ({"grid": {"trainer.max_steps": [1, "many"]}}, "trainer.max_steps = many: expected int"),
    "duplicate-value": ({"grid": {NOISE: [0.1, 0.1]}}, "is there twice"),
    "duplicate-cell": ({"grid": {"model.loss": ["LogisticLoss", "lnsgd.losses.LogisticLoss"]}}, "are the same run"),
    "replicas": ({"grid": {"replicas.seeds": [2]}}, "replicas are packed by the sweep itself"),
    "wandb": ({"wandb": "yes please"}, "wandb = yes please"),
}


@pytest.mark.parametrize(("given", "says"), BAD.values(), ids=BAD)
def test_a_bad_sweep_is_refused_in_one_line_and_nothing_is_written(given, says, tmp_path, capsys):
    path = write_sweep(tmp_path, **given)
    before = content(tmp_path)
    assert sweep(path) == 2
    assert content(tmp_path) == before
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("lnsgd: error: ")
    assert says in lines[0]


OPTIONS = {
    "executor": (["--executor", "cloud"], "choose one of local, slurm"),
    "workers": (["--workers", "0"], "--workers 0; give at least 1"),
    "memory": (["--memory", "0"], "--memory 0.0; give gigabytes > 0"),
    "retries": (["--retries", "-1"], "--retries -1; give 0 or more"),
    "unknown": (
        ["--wrkers", "2"],
        "lnsgd sweep: unrecognized arguments: --wrkers 2; `lnsgd sweep --help` shows its options",
    ),
}


@pytest.mark.parametrize(("options", "says"), OPTIONS.values(), ids=OPTIONS)
def test_bad_options_are_refused_in_one_line(options, says, tmp_path, capsys):
    path = write_sweep(tmp_path, seeds=1)
    before = content(tmp_path)
    assert sweep(path, *options) == 2
    assert content(tmp_path) == before
    assert says in capsys.readouterr().err


def test_no_sweep_there(capsys, tmp_path):
    for args in (["sweep", "nothing.yaml"], ["table", str(tmp_path)]):
        with pytest.raises(SystemExit) as ended:
            main(args)
        assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "nothing.yaml: there is no such sweep" in said
    assert "holds no sweep" in said


def test_tables_are_written(tmp_path, capsys):
    assert sweep(write_sweep(tmp_path, seeds=2)) == 0
    main(["table", "out", "--csv", "table.csv", "--trajectories", "all.parquet"])
    written = pd.read_csv("table.csv")
    found = load("out")
    assert list(written) == list(found)
    assert written.cell.tolist() == found.cell.tolist()
    pd.testing.assert_series_equal(written.distance_from_init, found.distance_from_init)
    pd.testing.assert_frame_equal(pd.read_parquet("all.parquet"), load_trajectories("out"))
    main(["table", "out"])
    assert "2 cells: 2 done" in capsys.readouterr().out


def begin(path: Path) -> subprocess.Popen:
    """A sweep in a process of its own, as soon as one of its jobs has been begun."""
    process = subprocess.Popen(
        [LNSGD, "sweep", str(path), "--out", "out", "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(Path("out/progress").glob("*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_interrupted_it_stops_where_it_can_go_on(tmp_path):
    long = {"options": {"trainer.max_steps": 3000}, "seeds": 4}
    path = write_sweep(tmp_path, callbacks=[ORDINARY], **long)
    process = begin(path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == os.EX_TEMPFAIL, said
    assert "stopping all jobs where they can go on" in said
    folder = SweepFolder(Path("out"))
    begun = [job for job in folder.planned_jobs() if folder.begun(job)]
    assert begun
    assert [folder.read_attempts(job).begun for job in begun] == [0] * len(begun)
    assert any(folder.run(job).last_checkpoint.exists() for job in begun)
    assert sweep(path) == 0
    found = load("out")
    assert found.status.tolist() == ["done"] * 4
    assert found.attempts.tolist() == [1] * 4


def test_two_sweeps_at_once_run_no_job_twice(tmp_path):
    path = write_sweep(tmp_path, callbacks=[ORDINARY], options={"trainer.max_steps": 300}, seeds=6)
    process = begin(path)
    assert sweep(path) == 0
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, out + said
    found = load("out")
    assert found.status.tolist() == ["done"] * 6
    logs = [SweepFolder(Path("out")).log(job).read_text() for job in found.job]
    assert [log.count("The run is in ") for log in logs] == [1] * 6
    assert found.attempts.tolist() == [1] * 6
    assert json.loads(next(Path("out/attempts").glob("*.json")).read_text()) == {"begun": 1, "errors": []}
