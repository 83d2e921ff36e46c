"""Sweeps with the local executor, end to end: results, repeated commands, failures and interruptions."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lnsgd.cli import main
from lnsgd.sweep import load, load_trajectories
from lnsgd.sweep.folder import SweepFolder
from tests.small_config import instance
from tests.sweep.small_sweeps import DEADLINE, ORDINARY, read_files, write_sweep

NET, NOISE, SEED = "model.net.widths", "model.label_noise.p", "seed_everything"


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sweep(path: Path, *options: str, workers: int = 2) -> int:
    """Run ``lnsgd sweep`` into the folder ``out``, and return its exit code."""
    try:
        main(["sweep", str(path), "--out", "out", "--workers", str(workers), *options])
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


def fault(kind: str, **arguments) -> dict:
    return instance("tests.sweep.small_sweeps.Fault", kind=kind, **arguments)


GRID = {NOISE: [0.0, 0.3]}


@pytest.fixture(scope="module")
def packed_folder(tmp_path_factory) -> Path:
    """Run a sweep of kernel replicas; its config lies beside its folder."""
    folder = tmp_path_factory.mktemp("packed")
    main(["sweep", str(write_sweep(folder, grid=GRID, seeds=2)), "--out", str(folder / "out"), "--workers", "2"])
    return folder


@pytest.fixture
def packed(packed_folder, tmp_path) -> pd.DataFrame:
    """Return the table of that sweep, of which a copy is in ``out``."""
    shutil.copytree(packed_folder, tmp_path, dirs_exist_ok=True)
    return load("out")


def test_each_packed_cell_has_a_row(packed):
    assert packed.status.tolist() == ["done"] * 4
    assert packed[[NOISE, SEED]].to_numpy().tolist() == [[0.0, 0], [0.0, 1], [0.3, 0], [0.3, 1]]
    assert packed.steps.tolist() == [20] * 4
    assert packed.job.nunique() == 2
    trajectories = load_trajectories("out")
    last = trajectories[
        (trajectories.step == 20) & (trajectories.measure == "distance_from_init") & (trajectories.layer == "")
    ]
    assert last.set_index("cell").value.to_dict() == packed.set_index("cell").distance_from_init.to_dict()


def test_packed_cell_equals_ordinary_run(packed, tmp_path):
    """A callback that does not support replicas makes the same cell an ordinary run."""
    path = write_sweep(tmp_path / "alone", callbacks=[ORDINARY], options={SEED: 1, NOISE: 0.3})
    main(["sweep", str(path), "--out", "alone/out", "--workers", "2"])
    alone = load("alone/out")
    in_pack = packed[(packed[SEED] == 1) & (packed[NOISE] == 0.3)].reset_index(drop=True)
    assert len(alone) == len(in_pack) == 1
    assert set(alone.cell).isdisjoint(packed.cell)  # a further callback makes another run
    measures = [name for name in packed if name.startswith(("distance", "loss", "error"))]
    assert len(measures) >= 3
    pd.testing.assert_frame_equal(in_pack[measures], alone[measures], rtol=1e-5)
    assert alone.steps.tolist() == [20]


def test_complete_cells_stay_and_further_seeds_are_added(packed, packed_folder, tmp_path):
    path, folder = packed_folder / "small.yaml", read_files(Path("out"))
    assert sweep(path) == 0
    assert read_files(Path("out")) == folder
    assert sweep(write_sweep(tmp_path, grid=GRID, seeds=3)) == 0
    after = load("out")
    assert after.status.tolist() == ["done"] * 6
    kept = after[after[SEED] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, packed, check_exact=True)


def test_dry_run_writes_nothing(tmp_path, capsys):
    path = write_sweep(tmp_path, grid={NET: [[784, 5, 10], [784, 5, 5, 10]]}, seeds=3)
    before = read_files(tmp_path)
    assert sweep(path, "--dry-run") == 0
    assert read_files(tmp_path) == before
    printed = " ".join(capsys.readouterr().out.split())
    assert "small: 6 cells, 0 complete; 2 jobs" in printed
    assert "kernel" in printed
    assert "general" in printed


def test_failed_cells_have_rows_and_others_finish(tmp_path, capsys):
    """Seed 1 raises an exception; seed 2 is killed once; seed 3 is always killed; seed 4 diverges.

    The first attempt at seed 1 reaches a checkpoint, after 5 steps, and does not count against the retries.
    """
    mark = tmp_path / "mark"
    killed = {"kind": "SIGKILL", "step": 3}
    callbacks = [fault("exception", seed=1), fault(**killed, seed=2, mark=str(mark)), fault(**killed, seed=3)]
    path = write_sweep(
        tmp_path,
        callbacks=callbacks,
        zip=[{SEED: [0, 1, 2, 3, 4], "model.optimizer.lr": [0.1, 0.1, 0.1, 0.1, 1e30]}],
    )
    assert sweep(path) == 1
    found = load("out")
    assert found.status.tolist() == ["done", "failed", "done", "failed", "diverged"]
    assert found.attempts.tolist() == [1, 3, 2, 2, 1]
    assert found.reason[1] == "RuntimeError: injected fault"
    assert "killed by SIGKILL (out of memory?); see out/logs/" in found.reason[3]
    assert found.reason[4].startswith("diverged at step ")
    assert found.distance_from_init.isna().tolist() == [False, True, False, True, True]
    printed = capsys.readouterr().out
    assert "RuntimeError: injected fault" in " ".join(printed.split())
    assert "2 failed" in printed
    before = read_files(Path("out"))
    assert sweep(path, "--retries", "3") == 1  # jobs that have failed for good have rows
    assert read_files(Path("out")) == before


def test_diverged_replica_does_not_affect_the_others(tmp_path):
    grid = {"model.optimizer.lr": [0.1, 1e30]}
    assert sweep(write_sweep(tmp_path, grid=grid, seeds=2), workers=1) == 0
    found = load("out")
    assert found.job.nunique() == 1
    assert found.status.tolist() == ["done", "done", "diverged", "diverged"]
    assert found.distance_from_init.isna().tolist() == [False, False, True, True]
    assert (found.steps[:2] == 20).all()
    assert (found.steps[2:] < 20).all()


def test_failed_job_runs_again_on_request(tmp_path):
    mark = tmp_path / "mark"
    path = write_sweep(tmp_path, callbacks=[fault("exception", step=3, mark=str(mark))])
    assert sweep(path, "--retries", "0") == 1
    assert load("out").status.tolist() == ["failed"]
    assert sweep(path, "--retry-failed") == 0
    after = load("out")
    assert after.status.tolist() == ["done"]
    assert after.attempts.tolist() == [1]


BAD = {
    "unknown-key": ({"grdi": {}}, "'grdi' is not a key of a sweep"),
    "empty-list": ({"grid": {NOISE: []}}, "model.label_noise.p = []"),
    "unknown-option": ({"grid": {"model.label_noise.q": [1]}}, "no option 'q'"),
    "wrong-type": ({"grid": {"trainer.max_steps": [1, "many"]}}, "trainer.max_steps = many: expected int"),
    "duplicate-value": ({"grid": {NOISE: [0.1, 0.1]}}, "is given twice"),
    "duplicate-cell": ({"grid": {"model.loss": ["LogisticLoss", "lnsgd.losses.LogisticLoss"]}}, "are the same run"),
    "replicas": ({"grid": {"replicas.seeds": [2]}}, "a sweep packs replicas by itself"),
    "wandb": ({"wandb": "yes please"}, "wandb = yes please"),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD)
def test_invalid_sweep_is_refused_and_nothing_is_written(given, message, tmp_path, capsys):
    path = write_sweep(tmp_path, **given)
    before = read_files(tmp_path)
    assert sweep(path) == 2
    assert read_files(tmp_path) == before
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("lnsgd: error: ")
    assert message in lines[0]


OPTIONS = {
    "executor": (["--executor", "cloud"], "choose one of local, slurm"),
    "workers": (["--workers", "0"], "--workers 0; give at least 1"),
    "memory": (["--memory", "0"], "--memory 0.0; give gigabytes > 0"),
    "retries": (["--retries", "-1"], "--retries -1; give 0 or more"),
    "unknown": (
        ["--wrkers", "2"],
        "lnsgd sweep: unrecognized arguments: --wrkers 2 (did you mean '--workers'?); `lnsgd sweep --help` shows its "
        "options",
    ),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_invalid_options_are_refused(options, message, tmp_path, capsys):
    path = write_sweep(tmp_path, seeds=1)
    before = read_files(tmp_path)
    assert sweep(path, *options) == 2
    assert read_files(tmp_path) == before
    assert message in capsys.readouterr().err


def test_missing_sweep_is_refused(capsys, tmp_path):
    for args in (["sweep", "nothing.yaml"], ["table", str(tmp_path)]):
        with pytest.raises(SystemExit) as ended:
            main(args)
        assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert "nothing.yaml does not exist" in errors and "mnist-noise" in errors
    assert "does not hold a sweep" in errors


def test_table_and_trajectories_are_written_to_files(packed, capsys):
    main(["table", "out", "--csv", "table.csv", "--trajectories", "all.parquet"])
    written = pd.read_csv("table.csv")
    assert list(written) == list(packed)
    assert written.cell.tolist() == packed.cell.tolist()
    pd.testing.assert_series_equal(written.distance_from_init, packed.distance_from_init)
    pd.testing.assert_frame_equal(pd.read_parquet("all.parquet"), load_trajectories("out"))
    main(["table", "out"])
    assert "4 cells: 4 done" in capsys.readouterr().out


def call_when(condition: Callable[[], bool], action: Callable[[], None]) -> threading.Thread:
    """Wait for a condition in a thread beside the main thread, which runs a sweep; then call an action."""

    def wait() -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def have_met(number: int) -> Callable[[], bool]:
    """Return a condition: a number of runs have reached `Rendezvous`."""
    return lambda: Path("met").exists() and len(list(Path("met").iterdir())) >= number


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def write_meeting_sweep(tmp_path: Path, seeds: int, **arguments) -> Path:
    meet = instance("tests.sweep.small_sweeps.Rendezvous", folder=str(tmp_path / "met"), number=3, **arguments)
    return write_sweep(tmp_path, callbacks=[meet], seeds=seeds)


def begun_jobs() -> dict[str, int]:
    """Return the number of attempts at each job that was started."""
    folder = SweepFolder(Path("out"))
    return {job: folder.read_attempts(job).begun for job in folder.planned_jobs() if folder.begun(job)}


def test_interrupted_sweep_stops_at_checkpoints_and_resumes(tmp_path, capsys):
    """Two of three jobs run and wait for the third when the table is read and Ctrl-C is sent."""
    path, seen = write_meeting_sweep(tmp_path, seeds=3), []
    thread = call_when(have_met(2), lambda: (seen.extend(load("out").status), interrupt()))
    assert sweep(path) == os.EX_TEMPFAIL
    thread.join()
    assert sorted(seen) == ["missing", "running", "running"]
    assert "stopping all jobs at a checkpoint" in capsys.readouterr().err
    assert list(begun_jobs().values()) == [0, 0]
    folder = SweepFolder(Path("out"))
    assert [folder.run(job).last_checkpoint.exists() for job in begun_jobs()] == [True, True]
    assert load("out").status.tolist() == ["missing"] * 3
    assert sweep(path) == 0
    found = load("out")
    assert found.status.tolist() == ["done"] * 3
    assert found.attempts.tolist() == [1] * 3
    logs = [folder.log(job).read_text() for job in found.job]
    assert sum("stopped by SIGTERM at step 10" in log for log in logs) == 2


def test_second_interrupt_kills_jobs(tmp_path):
    """The job ignores the request to stop."""
    path = write_meeting_sweep(tmp_path, seeds=1, stubborn=True)
    first = call_when(have_met(1), interrupt)
    second = call_when(lambda: not first.is_alive(), lambda: (time.sleep(1), interrupt()))
    began = time.monotonic()
    assert sweep(path) == os.EX_TEMPFAIL
    first.join()
    second.join()
    assert time.monotonic() - began < DEADLINE  # after which the job would have given up waiting
    assert list(begun_jobs().values()) == [0]
    assert not any(SweepFolder(Path("out")).is_running(job) for job in begun_jobs())
    assert load("out").status.tolist() == ["missing"]
    for other in ("second", "third"):
        (tmp_path / "met" / other).touch()
    assert sweep(path) == 0
    assert load("out").attempts.tolist() == [1]
