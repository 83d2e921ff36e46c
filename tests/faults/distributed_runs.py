"""Runs of several processes, one of which is killed or stopped, and how the others end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer

from tests.ports import find_port
from tests.small_config import instance
from tests.stopped_runs import CONFIG

ROOT = Path(__file__).parents[2]

# Seconds after which a remaining process counts as hanging; it normally ends in seconds.
HANGS = 90


class FaultAt(Callback):
    """Sends a signal to a process in a hook, after a step; each process writes its id into a folder.

    The hook ``writing`` is called in the middle of writing a checkpoint.
    """

    def __init__(self, folder: str, step: int, rank: int, name: str = "SIGKILL", hook: str = "on_train_batch_end"):
        self.folder, self.step, self.rank, self.name = Path(folder), step, rank, name
        if hook != "writing":
            setattr(self, hook, self._fail)
        self.hook = hook

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"pid-{trainer.global_rank}").write_text(str(os.getpid()))
        if self.hook == "writing":
            save = torch.save

            def half(content: Any, file: Any, **options: Any) -> None:
                if (
                    trainer.global_step >= self.step and not options
                ):  # options are given when tensors are sent to other processes
                    file.write(b"PK half a checkpoint")
                    file.flush()
                    self._fail(trainer)
                save(content, file, **options)

            torch.save = half

    def _fail(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step >= self.step and trainer.global_rank == self.rank:
            (self.folder / "failed-at").write_text(str(time.time()))
            os.kill(os.getpid(), signal.Signals[self.name])


class Ended(NamedTuple):
    """The end of a command.

    Attributes:
        code: Exit code.
        lines: Lines of lnsgd on stderr.
        seconds: Time from the fault until the last of the other processes had ended.
        left: Ids of processes that are left behind.
    """

    code: int
    lines: list[str]
    seconds: float
    left: list[int]


def write_config(path: Path, patience: float | None = None, processes: int = 2, **fault: Any) -> Path:
    """Write the config of `stopped_runs` for several processes, with a fault."""
    config = yaml.safe_load(CONFIG)
    config["trainer"] |= {"devices": processes, "strategy": "ddp"}
    if fault:
        fault = {"folder": str(path.with_suffix("")), **fault}
        config["trainer"]["callbacks"].append(instance("tests.faults.distributed_runs.FaultAt", **fault))
    if patience is not None:
        watch = instance("lnsgd.callbacks.WatchProcesses", patience=patience)
        config["trainer"]["callbacks"].append(watch)
    path.write_text(yaml.safe_dump(config))
    return path


def start(config: Path, run: Path, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start ``lnsgd fit`` in a separate process group."""
    command = [*launcher, str(Path(sys.executable).with_name("lnsgd")), "fit", "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_PORT": str(find_port())}
    return subprocess.Popen(
        [*(launcher and (sys.executable, "-m")), *command, "--run_dir", str(run), *options],
        cwd=run.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str], folder: Path, stopped: int | None = None) -> Ended:
    """Wait until all processes of a command have ended, except a stopped one of two, which is then killed.

    Raises:
        AssertionError: A process hangs.
    """
    if stopped is not None:
        other = int(wait_for(folder / f"pid-{1 - stopped}"))
        float(wait_for(folder / "failed-at"))
        until = time.monotonic() + HANGS
        while _is_alive(other):
            assert time.monotonic() < until, "the other process hangs"
            time.sleep(0.05)
        ended_at = time.time()
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((folder / f"pid-{stopped}").read_text()), signal.SIGKILL)
    try:
        _, errors = process.communicate(timeout=HANGS)  # returns when all processes have closed the pipe
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        raise AssertionError(f"a process hangs; its output: {errors[-2000:]}") from None
    ended_at = ended_at if stopped is not None else time.time()
    lines = [line for line in errors.splitlines() if line.startswith("lnsgd: ")]
    failed_at = folder / "failed-at"
    seconds = ended_at - float(failed_at.read_text()) if failed_at.exists() else 0.0
    return Ended(process.returncode, lines, seconds, _processes_left(process.pid))


def wait_for(path: Path) -> str:
    """Wait until a file has content, and return it."""
    until = time.monotonic() + HANGS
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until, f"{path} is not written"
        time.sleep(0.05)
    return path.read_text()


def _is_alive(pid: int) -> bool:
    """Return whether a process runs; one whose parent was stopped may be a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _processes_left(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found
