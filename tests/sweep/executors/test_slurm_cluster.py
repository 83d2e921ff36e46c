"""A sweep in a real SLURM: one job is killed, others are preempted, and the watching process is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, Trainer

from lnsgd.callbacks import StopOnSignal
from lnsgd.sweep import load
from lnsgd.sweep.folder import SweepFolder
from tests.small_config import instance
from tests.sweep.small_sweeps import assert_same_table, write_sweep

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "scripts" / "slurm" / "local_cluster.sh"
LNSGD = str(Path(sys.executable).with_name("lnsgd"))
DEADLINE = 150

# 40 cells in five jobs, of which four run at once.
GRID = {"model.net.widths": [[784, width, 10] for width in range(5, 10)]}
SEEDS = 8
KILLED_AT, HELD_AT = 40, 80


class FaultOfOne(Callback):
    """Kills the first process that reaches a step; holds the first that reaches a later step until it is signalled."""

    def __init__(self, killed: str, held: str) -> None:
        self.killed, self.held = Path(killed), Path(held)

    def next_stop(self, step: int) -> int | None:
        return min((stop for stop in (KILLED_AT, HELD_AT) if stop > step), default=None)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == KILLED_AT and is_first(self.killed):
            os.kill(os.getpid(), signal.SIGKILL)
        if trainer.global_step == HELD_AT and is_first(self.held):
            (stopping,) = (callback for callback in trainer.callbacks if isinstance(callback, StopOnSignal))
            wait_until(lambda: stopping._signals.received)


def is_first(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"SLURM is not installed: there is no {', '.join(missing)}")
    if os.getuid() != 0:
        pytest.skip("only root can start a SLURM")
    folder = tmp_path_factory.mktemp("slurm")
    folder.parent.chmod(0o755)
    up = subprocess.run([CLUSTER, "up", folder], capture_output=True, text=True)
    if up.returncode != 0:
        pytest.skip(f"SLURM does not come up: {up.stderr.strip()}")
    before = dict(os.environ)
    os.environ |= {"SLURM_CONF": str(folder / "slurm.conf"), "PYTHONPATH": str(ROOT)}
    yield
    subprocess.run([CLUSTER, "down", folder], check=True)
    os.environ.clear()
    os.environ.update(before)


def start(path: Path, *options: str) -> subprocess.Popen:
    task = ["--slurm.cpus-per-task", "1", "--slurm.mem", "4", "--slurm.time", "5"]
    command = [LNSGD, "sweep", str(path), "--out", "slurm", "--executor", "slurm", *task, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_table_equals_that_of_the_local_executor(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    marks = {"killed": str(tmp_path / "killed"), "held": str(tmp_path / "held")}
    callbacks = [instance("tests.sweep.executors.test_slurm_cluster.FaultOfOne", **marks)]
    path = write_sweep(tmp_path, callbacks=callbacks, options={"trainer.max_steps": 200}, grid=GRID, seeds=SEEDS)
    watcher = start(path, "--workers", "5")
    wait_until(lambda: Path(marks["held"]).exists() or watcher.poll() is not None)
    watcher.kill()
    _, errors = watcher.communicate()
    assert "5 jobs are in SLURM's queue as " in errors
    folder = SweepFolder(Path("slurm"))
    assert len(list(folder.submissions.glob("*.json"))) == 1
    # A job of the partition with the higher priority preempts the jobs on both nodes.
    subprocess.run(["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 2"], check=True)
    watcher = start(path, "--workers", "2")  # would be fewer, larger jobs if they were packed anew
    printed, errors = watcher.communicate(timeout=DEADLINE)
    assert watcher.returncode == 0, printed + errors
    assert "1 job is in SLURM's queue as " in errors  # the job that was killed, and no other

    found = load("slurm")
    assert found.status.tolist() == ["done"] * 40
    attempts = found.groupby("job").attempts.first()
    assert sorted(attempts) == [1] * 4 + [2]
    (error,) = folder.read_attempts(attempts.idxmax()).errors
    assert error.startswith("its SLURM task ")
    logs = [folder.log(job).read_text() for job in attempts.index]
    assert any("stopped by SIG" in log for log in logs)
    assert not list(folder.submissions.glob("*.json"))

    local = [LNSGD, "sweep", str(path), "--out", "local", "--workers", "2"]
    assert subprocess.run(local, capture_output=True).returncode == 0
    assert len(load("local")) == 40
    assert_same_table(Path("slurm"), Path("local"))
