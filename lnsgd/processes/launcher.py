"""Starts the further processes of a run on this machine, and leaves none behind."""

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from lnsgd.processes.lost import LostProcess, is_communication_error

_SECONDS_BETWEEN_LOOKS = 0.2

# The others end at nearly the same time as the first. Where that has failed they may wait for it in vain.
_SECONDS_TO_END = 60.0
_SECONDS_TO_END_AFTER_ERROR = 5.0

# Says to a process which one has started it.
_STARTED_BY = "LNSGD_STARTED_BY"

# Torch prints a C++ stack where a process does not reach its store any more, which is said here in one line.
_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


class WatchingLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher of the strategy ``ddp``, with another watch over the processes.

    That of Lightning kills the first process within 5 s after another has died, without a word; and if the first dies,
    nobody tells those that it has started. Here each side watches the other, a few times a second, from the start on
    and whatever they do, and `LostProcess` says what happened. The first process ends last.

    Args:
        cluster_environment: As Lightning's launcher takes it.
        num_processes: The same.
        num_nodes: The same.
        lost: Who is told.
    """

    def __init__(
        self, cluster_environment: ClusterEnvironment, num_processes: int, num_nodes: int, lost: LostProcess
    ) -> None:
        super().__init__(cluster_environment, num_processes, num_nodes)
        self._lost = lost
        self._ended = threading.Event()
        lost.before_exit.append(self._kill)

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Starts the others, where this is the first, and calls the function; ends when all have ended."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            self._start_others()
        threading.Thread(target=self._watch, daemon=True, name="watch-processes").start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        patience = _SECONDS_TO_END_AFTER_ERROR
        try:
            result = function(*args, **kwargs)
            patience = _SECONDS_TO_END
            return result
        except SystemExit as ended:
            if ended.code in (0, os.EX_TEMPFAIL):  # stopped on request, which all are
                patience = _SECONDS_TO_END
            raise
        except Exception as error:
            if is_communication_error(error):  # which comes before the death of a process is seen
                self._watch(_SECONDS_TO_END_AFTER_ERROR)
            raise
        finally:
            self._ended.set()
            self._end_others(patience)

    def _start_others(self) -> None:
        added = {_STARTED_BY: str(os.getpid()), _LOG_LEVEL: os.environ.get(_LOG_LEVEL, "ERROR")}
        before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)
        try:
            self._call_children_scripts()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def _watch(self, seconds: float = math.inf) -> None:
        """Looks for so long, or until a process is lost or this one is about to end."""
        until = time.monotonic() + seconds
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS) and time.monotonic() < until:
            if (found := self._dead()) is not None:
                self._lost.declare(*found)
                return

    def _dead(self) -> tuple[int, str] | None:
        """Rank and fate of a process that has died: one that this one has started, or that has started this one."""
        for number, process in enumerate(self.procs):
            if code := process.poll():
                return self._lost.rank + 1 + number, _fate(code)
        if (starter := os.environ.get(_STARTED_BY)) and os.getppid() != int(starter):
            return self._lost.rank - self.cluster_environment.local_rank(), "is gone"
        return None

    def _end_others(self, patience: float) -> None:
        until = time.monotonic() + patience
        for process in self.procs:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _kill(self) -> None:
        for process in self.procs:  # one that was stopped hears nothing else
            process.kill()


def watch_launched(trainer: Trainer, remedy: str) -> LostProcess:
    """Gives a trainer a `WatchingLauncher` in place of Lightning's, where it has that; gives what it tells of a loss.

    Args:
        trainer: Before it runs.
        remedy: How to go on after a loss, one sentence without a full stop.
    """
    lost, strategy = LostProcess(trainer.global_rank, trainer.world_size, remedy), trainer.strategy
    if isinstance(strategy, DDPStrategy) and type(strategy.launcher) is _SubprocessScriptLauncher:
        assert strategy.cluster_environment is not None
        sizes = strategy.num_processes, strategy.num_nodes
        strategy._launcher = WatchingLauncher(strategy.cluster_environment, *sizes, lost)
    return lost


def _fate(code: int) -> str:
    """What became of a process, by its exit code."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
