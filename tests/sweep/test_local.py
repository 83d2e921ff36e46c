"""Sweeps on this machine, end to end: what is left, what is run again, and what befalls single jobs."""

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
from tests.sweep.small_sweeps import DEADLINE, ORDINARY, content, write_sweep

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


GRID = {NOISE: [0.0, 0.3]}


@pytest.fixture(scope="module")
def packed_folder(tmp_path_factory) -> Path:
    """A sweep of kernel replicas that is complete: the config beside it."""
    folder = tmp_path_factory.mktemp("packed")
    main(["sweep", str(write_sweep(folder, grid=GRID, seeds=2)), "--out", str(folder / "out"), "--workers", "2"])
    return folder


@pytest.fixture
def packed(packed_folder, tmp_path) -> pd.DataFrame:
    """Its table; a copy of it is in ``out``."""
    shutil.copytree(packed_folder, tmp_path, dirs_exist_ok=True)
    return load("out")


def test_packed_cells_are_rows(packed):
    assert packed.status.tolist() == ["done"] * 4
    assert packed[[NOISE, SEED]].to_numpy().tolist() == [[0.0, 0], [0.0, 1], [0.3, 0], [0.3, 1]]
    assert packed.steps.tolist() == [20] * 4
    assert packed.job.nunique() == 2
    trajectories = load_trajectories("out")
    last = trajectories[
        (trajectories.step == 20) & (trajectories.measure == "distance_from_init") & (trajectories.layer == "")
    ]
    assert last.set_index("cell").value.to_dict() == packed.set_index("cell").distance_from_init.to_dict()


def test_packed_and_alone_cells_are_the_same_runs(packed, tmp_path):
    """One of the same cells as an ordinary run, since a callback of its knows nothing of replicas."""
    path = write_sweep(tmp_path / "alone", callbacks=[ORDINARY], options={SEED: 1, NOISE: 0.3})
    main(["sweep", str(path), "--out", "alone/out", "--workers", "2"])
    alone = load("alone/out")
    those = packed[(packed[SEED] == 1) & (packed[NOISE] == 0.3)].reset_index(drop=True)
    assert len(alone) == len(those) == 1
    assert set(alone.cell).isdisjoint(packed.cell)  # a callback more is another run
    measures = [name for name in packed if name.startswith(("distance", "loss", "error"))]
    assert len(measures) >= 3
    pd.testing.assert_frame_equal(those[measures], alone[measures], rtol=1e-5)
    assert alone.steps.tolist() == [20]


def test_nothing_is_run_again_and_more_seeds_are_added(packed, packed_folder, tmp_path):
    path, folder = packed_folder / "small.yaml", content(Path("out"))
    assert sweep(path) == 0
    assert content(Path("out")) == folder
    assert sweep(write_sweep(tmp_path, grid=GRID, seeds=3)) == 0
    after = load("out")
    assert after.status.tolist() == ["done"] * 6
    there = after[after[SEED] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(there, packed, check_exact=True)


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
    """Seed 1 raises; seed 2 dies by a signal, once; seed 3 dies by it always; seed 4 diverges.

    The first attempt at seed 1 reaches a checkpoint, after 5 steps, and does not count against the retries.
    """
    mark = tmp_path / "mark"
    killed = {"how": "SIGKILL", "step": 3}
    callbacks = [befalls("exception", seed=1), befalls(**killed, seed=2, mark=str(mark)), befalls(**killed, seed=3)]
    path = write_sweep(
        tmp_path,
        callbacks=callbacks,
        zip=[{SEED: [0, 1, 2, 3, 4], "model.optimizer.lr": [0.1, 0.1, 0.1, 0.1, 1e30]}],
    )
    assert sweep(path) == 1
    found = load("out")
    assert found.status.tolist() == ["done", "failed", "done", "failed", "diverged"]
    assert found.attempts.tolist() == [1, 3, 2, 2, 1]
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
    path = write_sweep(tmp_path, callbacks=[befalls("exception", step=3, mark=str(mark))])
    assert sweep(path, "--retries", "0") == 1
    assert load("out").status.tolist() == ["failed"]
    assert sweep(path, "--retry-failed") == 0
    after = load("out")
    assert after.status.tolist() == ["done"]
    assert after.attempts.tolist() == [1]


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


def test_tables_are_written(packed, capsys):
    main(["table", "out", "--csv", "table.csv", "--trajectories", "all.parquet"])
    written = pd.read_csv("table.csv")
    assert list(written) == list(packed)
    assert written.cell.tolist() == packed.cell.tolist()
    pd.testing.assert_series_equal(written.distance_from_init, packed.distance_from_init)
    pd.testing.assert_frame_equal(pd.read_parquet("all.parquet"), load_trajectories("out"))
    main(["table", "out"])
    assert "4 cells: 4 done" in capsys.readouterr().out


def when(happened: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Waits for something beside the main thread, which runs a sweep."""

    def wait() -> None:
        deadline = time.monotonic() + DEADLINE
        while not happened() and time.monotonic() < deadline:
            time.sleep(0.02)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def met(number: int) -> Callable[[], bool]:
    """Whether so many runs have come to `Meet`."""
    return lambda: Path("met").exists() and len(list(Path("met").iterdir())) >= number


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def meeting(tmp_path: Path, seeds: int, **arguments) -> Path:
    init = {"folder": str(tmp_path / "met"), "number": 3, **arguments}
    callbacks = [{"class_path": "tests.sweep.small_sweeps.Meet", "init_args": init}]
    return write_sweep(tmp_path, callbacks=callbacks, seeds=seeds)


def begun_jobs() -> dict[str, int]:
    """Attempts at each job that was begun."""
    folder = SweepFolder(Path("out"))
    return {job: folder.read_attempts(job).begun for job in folder.planned_jobs() if folder.begun(job)}


def test_interrupted_it_stops_where_it_can_go_on(tmp_path, capsys):
    """Two jobs of three run, and wait for the third, when somebody looks at them and Ctrl-C comes."""
    path, seen = meeting(tmp_path, seeds=3), []
    thread = when(met(2), lambda: (seen.extend(load("out").status), interrupt()))
    assert sweep(path) == os.EX_TEMPFAIL
    thread.join()
    assert sorted(seen) == ["missing", "running", "running"]
    assert "stopping all jobs where they can go on" in capsys.readouterr().err
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


def test_a_second_interrupt_kills(tmp_path):
    """The job does not stop when it is asked to."""
    path = meeting(tmp_path, seeds=1, stubborn=True)
    first = when(met(1), interrupt)
    second = when(lambda: not first.is_alive(), lambda: (time.sleep(1), interrupt()))
    began = time.monotonic()
    assert sweep(path) == os.EX_TEMPFAIL
    first.join()
    second.join()
    assert time.monotonic() - began < DEADLINE  # when it would have given up waiting
    assert list(begun_jobs().values()) == [0]
    assert not any(SweepFolder(Path("out")).is_running(job) for job in begun_jobs())
    assert load("out").status.tolist() == ["missing"]
    for other in ("enough", "and more"):
        (tmp_path / "met" / other).touch()
    assert sweep(path) == 0
    assert load("out").attempts.tolist() == [1]
