"""The end of a process after another is lost, tested in forked processes."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from lnsgd.runs.errors import LostProcessError
from lnsgd.runs.processes import LostProcess, lost

# The error of gloo in a process whose neighbour has died.
BROKEN = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1234")

# Seconds after which a process that should be ended would end by itself.
LATE = 30.0

BY_ITSELF = 7


class Ended(NamedTuple):
    """Exit code and output of a process."""

    code: int
    output: str


def run_forked(call: Callable[[], None]) -> Ended:
    """Call a function in a fork of this process, which then ends by itself with `BY_ITSELF`."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(write, 2)
        code = 99
        try:
            call()
            code = BY_ITSELF
        except SystemExit as ended:
            code = int(str(ended.code))
        finally:
            os._exit(code)
    os.close(write)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(read) as output:
        return Ended(code, output.read())


def lost_process(rank: int, world: int = 3) -> LostProcess:
    return LostProcess(rank, world, "Start it again")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost, "_SECONDS_TO_END_AFTER_ERROR", 0.2)
    monkeypatch.setattr(lost, "_SECONDS_TO_FIND_CAUSE", 0.2)


def test_error_of_one_process_ends_it() -> None:
    def run() -> None:
        lost_process(2).exit_unless_ended(ValueError("no such layer"))
        time.sleep(LATE)  # as if in a collective, waiting for the others

    assert run_forked(run) == (1, "lnsgd: error: in the process of rank 2: no such layer\n")


def test_process_that_ends_by_itself_is_not_ended() -> None:
    def run() -> None:
        known = lost_process(2)
        known.exit_unless_ended(ValueError("no such layer"))
        known.settle()
        time.sleep(0.6)

    assert run_forked(run) == (BY_ITSELF, "")


# Rank of a process, rank of the lost one, and whether the process reports it: the lowest remaining rank does.
REPORTERS = [(0, 1, True), (0, 2, True), (0, None, True), (1, 0, True), (1, 2, False), (2, 0, False), (2, None, False)]


@pytest.mark.parametrize(("rank", "gone", "reports"), REPORTERS)
def test_process_that_does_not_end_by_itself_is_ended(rank: int, gone: int | None, reports: bool) -> None:
    def run() -> None:
        known = lost_process(rank)
        known.before_exit.append(lambda: os.write(2, b"the others are ended\n"))
        known.declare(gone, "is gone", grace=0.1)
        known.declare(0, "does not count any more", grace=0.0)
        time.sleep(LATE)

    who = "a process" if gone is None else f"the process of rank {gone}"
    line = f"lnsgd: error: {who} (of 3) is gone; the others cannot continue without it, so the run has ended. "
    assert run_forked(run) == (1, (line + "Start it again\n") * reports + "the others are ended\n")


@pytest.mark.parametrize("rank", [0, 2])
def test_cause_of_a_failed_collective_is_found(rank: int) -> None:
    known = lost_process(rank)
    known.declare(1, "was killed by SIGKILL", grace=LATE)
    if rank == 2:  # the first reports it
        with pytest.raises(SystemExit, match="1"):
            known.cause_of(BROKEN)
    else:
        found = known.cause_of(BROKEN)
        assert isinstance(found, LostProcessError)
        assert str(found).startswith("the process of rank 1 (of 3) was killed by SIGKILL; the others cannot continue")
    assert known.in_trouble


def test_failed_collective_without_a_known_loss() -> None:
    found = lost_process(1).cause_of(BROKEN)
    assert isinstance(found, LostProcessError)
    assert str(found).startswith("a process (of 3) does not respond any more: [gloo/transport")


def test_other_error_is_not_caused_by_a_loss() -> None:
    def run() -> None:
        known = lost_process(0)
        assert known.cause_of(ValueError("no such layer")) is None
        known.declare(1, "is gone", grace=0.0)  # due to the error, and too late to end anything
        time.sleep(0.3)

    assert run_forked(run) == (BY_ITSELF, "")
