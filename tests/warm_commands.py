"""Commands in processes of their own, forked from one that has imported everything once.

A line of JSON in: the arguments, the folder, and at which change of a folder to get which signal; a process id out, and
when the process has ended, its exit code.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import Value, util
from pathlib import Path
from select import select
from typing import Any

from lightning_fabric.plugins.environments import lightning

from lnsgd.sweep.executors import local
from tests.ports import find_port

ROOT = Path(__file__).parents[1]
DEADLINE = 120

# What a command prints, in the folder where it runs.
SAID = "said.txt"

# What commands import when they are called.
_IMPORTED = (
    *("lnsgd.training.cli", "lnsgd.sweep.run", "lnsgd.analysis.command", "lnsgd.figures.framework.command"),
    *local._PRELOADED,
)


class WarmCommands:
    """Starter of commands, one at a time, each the leader of a session that can be killed as a whole."""

    def __init__(self) -> None:
        self._warm = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_commands"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._process: int | None = None
        assert self._line() == "ready\n"  # it has imported everything

    def start(self, args: Sequence[str], folder: Path, at_change: int = 0, send: int = signal.SIGKILL) -> int:
        """Start ``lnsgd …`` in a folder; return the id of its process.

        With ``at_change`` it gets a signal, with all that it has started, just before the n-th time that one of them
        gives a file its name or takes one away.
        """
        if self._process is not None:  # a test that failed has left it
            self.kill(self._process)
        assert self._warm.stdin is not None
        self._warm.stdin.write(json.dumps([[*map(str, args)], str(folder), at_change, send]) + "\n")
        self._warm.stdin.flush()
        self._process = int(self._line())
        return self._process

    def end(self) -> int:
        """Wait for the process that was started last; return its exit code, below 0 for a signal."""
        code = int(self._line())
        self._process = None
        return code

    def kill(self, process: int) -> int:
        """Kill a process with its descendants; return its exit code, 0 if it had already ended."""
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        code = self.end()
        wait_until_dead(process, signal.SIGKILL)
        return code

    def _line(self) -> str:
        assert self._warm.stdout is not None
        assert select([self._warm.stdout], [], [], DEADLINE)[0], "it never ends"
        return self._warm.stdout.readline()

    def close(self) -> None:
        """End the process that has imported everything, and processes that a failed test left running."""
        if self._process is not None:
            self.kill(self._process)
        assert self._warm.stdin is not None
        self._warm.stdin.close()
        self._warm.wait()


def alive(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_until_dead(session: int, send: int = 0) -> None:
    """Send a signal to all processes of a session until they have ended."""
    deadline = time.monotonic() + DEADLINE
    while left := alive(session):
        for one in left:
            with suppress(ProcessLookupError):
                os.kill(one, send)
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def _fork_in_place_of_spawn(path: bytes, args: Sequence[str], passfds: Sequence[int]) -> int:
    """`multiprocessing.util.spawnv_passfds` for ``python -c code``; the child has the same files open as if spawned."""
    if child := os.fork():
        return child
    for open_file in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        if open_file > 2 and open_file not in passfds:
            with suppress(OSError):  # that of the listing itself
                os.close(open_file)
    try:
        exec(args[-1], {})
    finally:
        os._exit(0)


def _send_at(change: int, number: int) -> None:
    changes = Value("i")

    def counted(call: Callable[..., None]) -> Callable[..., None]:
        def count_and_call(*args: Any, **kwargs: Any) -> None:
            with changes:
                changes.value += 1
                if changes.value == change:
                    os.killpg(0, number)
            call(*args, **kwargs)

        return count_and_call

    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, counted(getattr(os, name)))


def _run(args: list[str], folder: str, at_change: int, send: int) -> None:
    from lnsgd.cli import main

    os.setsid()
    if at_change:
        _send_at(at_change, send)
    os.chdir(folder)
    util.spawnv_passfds = _fork_in_place_of_spawn
    lightning.find_free_network_port = find_port
    log = os.open(SAID, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.argv = ["lnsgd", *args]
    code = 0
    try:
        main(args)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for module in _IMPORTED:
        import_module(module)
    print("ready", flush=True)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            _run(*json.loads(line))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
