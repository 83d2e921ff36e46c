"""Starts sweeps from a process that has imported everything once: a line of arguments in, a process id out.

So do their own processes: what jobs are forked from is forked from it, and not started and made to import anew.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import util
from pathlib import Path

import lnsgd.sweep.run
import lnsgd.sweep.work  # noqa: F401
from lnsgd.cli import main
from lnsgd.sweep import local


def fork_in_place_of_spawn(path: bytes, args: Sequence[str], passfds: Sequence[int]) -> int:
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


def run(args: list[str]) -> None:
    """A sweep in a session of its own, so that everything it starts can be found."""
    os.setsid()
    util.spawnv_passfds = fork_in_place_of_spawn
    log = os.open("sweeps.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    try:
        main(["sweep", *args])
    except SystemExit as ended:
        os._exit(int(str(ended.code)))
    os._exit(0)


if __name__ == "__main__":
    for module in local._PRELOADED:
        import_module(module)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            run(json.loads(line))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
