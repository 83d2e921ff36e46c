"""Runs of several processes in which one is killed or stopped, and what becomes of the others."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer

from tests.stopped_runs import CONFIG

ROOT = Path(__file__).parents[2]

# A survivor that has not ended by then hangs. It takes seconds.
HANGS = 90


class FaultAt(Callback):
    """Sends a process a signal in a hook, once a step has been taken; each process leaves its id in a folder.

    The hook ``writing`` is in the middle of writing a checkpoint.
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
                if trainer.global_step >= self.step and not options:  # with which tensors are sent to other processes
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
    """What became of a command.

    Attributes:
        code: Its exit code.
        said: Its lines on stderr that lnsgd wrote.
        seconds: From the fault until the last process that was not at fault had ended.
        left: Processes that it has left behind.
    """

    code: int
    said: list[str]
    seconds: float
    left: list[int]


def write_config(path: Path, patience: float | None = None, processes: int = 2, **fault: Any) -> Path:
    """The config of `stopped_runs` for several processes, with a fault."""
    config = yaml.safe_load(CONFIG)
    config["trainer"] |= {"devices": processes, "strategy": "ddp"}
    if fault:
        fault = {"folder": str(path.with_suffix("")), **fault}
        config["trainer"]["callbacks"].append({"class_path": "tests.faults.processes.FaultAt", "init_args": fault})
    if patience is not None:
        watch = {"class_path": "lnsgd.callbacks.WatchProcesses", "init_args": {"patience": patience}}
        config["trainer"]["callbacks"].append(watch)
    path.write_text(yaml.safe_dump(config))
    return path


def start(config: Path, run: Path, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """``lnsgd fit`` in a process group of its own."""
    command = [*launcher, str(Path(sys.executable).with_name("lnsgd")), "fit", "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_PORT": str(_free_port())}
    return subprocess.Popen(
        [*(launcher and (sys.executable, "-m")), *command, "--run_dir", str(run), *options],
        cwd=run.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def end(process: subprocess.Popen[str], folder: Path, stopped: int | None = None) -> Ended:
    """Waits until all processes of a command have ended, but one of two that was stopped, which is then killed.

    Raises:
        AssertionError: one hangs.
    """
    if stopped is not None:
        other = int(wait_for(folder / f"pid-{1 - stopped}"))
        float(wait_for(folder / "failed-at"))
        until = time.monotonic() + HANGS
        while _lives(other):
            assert time.monotonic() < until, "the other process hangs"
            time.sleep(0.05)
        ended_at = time.time()
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((folder / f"pid-{stopped}").read_text()), signal.SIGKILL)
    try:
        _, errors = process.communicate(timeout=HANGS)  # all that have inherited the pipe have closed it
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        raise AssertionError(f"a process hangs; said so far: {errors[-2000:]}") from None
    ended_at = ended_at if stopped is not None else time.time()
    said = [line for line in errors.splitlines() if line.startswith("lnsgd: ")]
    failed_at = folder / "failed-at"
    seconds = ended_at - float(failed_at.read_text()) if failed_at.exists() else 0.0
    return Ended(process.returncode, said, seconds, _left(process.pid))


def wait_for(path: Path) -> str:
    """What a file says, once it is there."""
    until = time.monotonic() + HANGS
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until, f"{path} is not written"
        time.sleep(0.05)
    return path.read_text()


def _lives(pid: int) -> bool:
    """Whether a process is there and no zombie, which one is whose parent was stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _left(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found
