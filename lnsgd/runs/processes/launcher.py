"""Start the further processes of a run on this machine, and leave none behind."""

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy

from lnsgd import compat
from lnsgd.runs.processes.lost import LostProcess, is_communication_error

_ScriptLauncher: Any = compat.script_launcher()

_SECONDS_BETWEEN_CHECKS = 0.2

# The other processes end at nearly the same time as the first. After an error they may wait for it forever.
_SECONDS_TO_END = 60.0
_SECONDS_TO_END_AFTER_ERROR = 5.0

# The environment variable that tells a process which process has started it.
_STARTED_BY = "LNSGD_STARTED_BY"

# Torch prints a C++ stack when a process cannot reach its store any more; lnsgd reports this in one line.
_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


class WatchingLauncher(_ScriptLauncher):
    """Lightning's launcher of the strategy ``ddp``, with another way to watch the processes.

    Lightning's launcher kills the first process within 5 s after another has died, without a message. If the first
    dies, the processes that it has started do not notice. Here each side watches the other, a few times a second, from
    the start on and whatever they do, and `LostProcess` reports what happened. The first process ends last.

    Args:
        cluster_environment: See Lightning's launcher.
        num_processes: See Lightning's launcher.
        num_nodes: See Lightning's launcher.
        lost: Records a loss.
    """

    def __init__(
        self, cluster_environment: ClusterEnvironment, num_processes: int, num_nodes: int, lost: LostProcess
    ) -> None:
        super().__init__(cluster_environment, num_processes, num_nodes)
        self._lost = lost
        self._ended = threading.Event()
        lost.before_exit.append(self._kill_others)

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes, if this is the first, and call the function; return when all have ended."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            self._start_others()
        threading.Thread(target=self._watch, daemon=True, name="watch-processes").start()
        compat.limit_threads(self.num_processes)
        patience = _SECONDS_TO_END_AFTER_ERROR
        try:
            result = function(*args, **kwargs)
            patience = _SECONDS_TO_END
            return result
        except SystemExit as ended:
            if ended.code in (0, os.EX_TEMPFAIL):  # stopped on request, as all others are
                patience = _SECONDS_TO_END
            raise
        except Exception as error:
            if is_communication_error(error):  # it arrives before the death of a process is seen
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
            compat.start_child_scripts(self)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def _watch(self, seconds: float = math.inf) -> None:
        """Watch the other processes until the time is up, a process is lost, or this one is about to end."""
        until = time.monotonic() + seconds
        while not self._ended.wait(_SECONDS_BETWEEN_CHECKS) and time.monotonic() < until:
            if (found := self._find_dead()) is not None:
                self._lost.declare(*found)
                return

    def _find_dead(self) -> tuple[int, str] | None:
        """Return rank and fate of a dead process, if this one has started it or it has started this one."""
        for number, process in enumerate(self.procs):
            if code := process.poll():
                return self._lost.rank + 1 + number, _describe_exit(code)
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

    def _kill_others(self) -> None:
        for process in self.procs:  # a process that was stopped reacts to no other signal
            process.kill()


def watch_launched(trainer: Trainer, remedy: str) -> LostProcess:
    """Replace Lightning's launcher of a Trainer, if it has one, by a `WatchingLauncher`.

    Args:
        trainer: The Trainer, before it runs.
        remedy: How to resume after a loss, one sentence without a full stop.

    Returns:
        The object that records a loss.
    """
    lost, strategy = LostProcess(trainer.global_rank, trainer.world_size, remedy), trainer.strategy
    if isinstance(strategy, DDPStrategy) and type(strategy.launcher) is _ScriptLauncher:
        assert strategy.cluster_environment is not None
        sizes = strategy.num_processes, strategy.num_nodes
        compat.set_launcher(strategy, WatchingLauncher(strategy.cluster_environment, *sizes, lost))
    return lost


def _describe_exit(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
