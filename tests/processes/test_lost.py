"""How a process ends that has lost another one, in forked processes of their own."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from lnsgd.processes import LostProcess, lost
from lnsgd.run_errors import LostProcessError

# What gloo says in a process whose neighbour has died.
BROKEN = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1234")

# Seconds after which a process that is to be ended would end in another way.
LATE = 30.0

BY_ITSELF = 7


class Ended(NamedTuple):
    """What became of a process."""

    code: int
    said: str


def in_a_process(what: Callable[[], None]) -> Ended:
    """Runs something in a fork of this process, which then ends by itself with `BY_ITSELF`."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(write, 2)
        code = 99
        try:
            what()
            code = BY_ITSELF
        except SystemExit as ended:
            code = int(str(ended.code))
        finally:
            os._exit(code)
    os.close(write)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(read) as said:
        return Ended(code, said.read())


def of(rank: int, world: int = 3) -> LostProcess:
    return LostProcess(rank, world, "Start it again")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost, "_SECONDS_TO_END_AFTER_ERROR", 0.2)
    monkeypatch.setattr(lost, "_VERDICT_SECONDS", 0.2)


def test_an_error_that_only_this_process_has_ends_it() -> None:
    def run() -> None:
        of(2).end_after(ValueError("no such layer"))
        time.sleep(LATE)  # in a collective, for the others

    assert in_a_process(run) == (1, "lnsgd: error: in the process of rank 2: no such layer\n")


def test_not_where_it_ends_by_itself() -> None:
    def run() -> None:
        known = of(2)
        known.end_after(ValueError("no such layer"))
        known.settle()
        time.sleep(0.6)

    assert in_a_process(run) == (BY_ITSELF, "")


# Rank of a process, rank of the one that it has lost, whether it says so: the lowest that is left.
SPEAKERS = [(0, 1, True), (0, 2, True), (0, None, True), (1, 0, True), (1, 2, False), (2, 0, False), (2, None, False)]


@pytest.mark.parametrize(("rank", "gone", "speaks"), SPEAKERS)
def test_a_process_that_does_not_end_by_itself_is_ended(rank: int, gone: int | None, speaks: bool) -> None:
    def run() -> None:
        known = of(rank)
        known.before_exit.append(lambda: os.write(2, b"the others are ended\n"))
        known.declare(gone, "is gone", grace=0.1)
        known.declare(0, "is not what counts any more", grace=0.0)
        time.sleep(LATE)

    who = "a process" if gone is None else f"the process of rank {gone}"
    line = f"lnsgd: error: {who} (of 3) is gone; the others cannot go on without it, so the run has ended. "
    assert in_a_process(run) == (1, (line + "Start it again\n") * speaks + "the others are ended\n")


@pytest.mark.parametrize("rank", [0, 2])
def test_what_a_failed_collective_follows_from(rank: int) -> None:
    known = of(rank)
    known.declare(1, "was killed by SIGKILL", grace=LATE)
    if rank == 2:  # the first says it
        with pytest.raises(SystemExit, match="1"):
            known.behind(BROKEN)
    else:
        found = known.behind(BROKEN)
        assert isinstance(found, LostProcessError)
        assert str(found).startswith("the process of rank 1 (of 3) was killed by SIGKILL; the others cannot go on")
    assert known.in_trouble


def test_a_failed_collective_without_a_loss_that_is_known() -> None:
    found = of(1).behind(BROKEN)
    assert isinstance(found, LostProcessError)
    assert str(found).startswith("a process (of 3) does not take part any more: [gloo/transport")


def test_another_error_follows_from_no_loss() -> None:
    def run() -> None:
        known = of(0)
        assert known.behind(ValueError("no such layer")) is None
        known.declare(1, "is gone", grace=0.0)  # because of the error, and too late to end anything
        time.sleep(0.3)

    assert in_a_process(run) == (BY_ITSELF, "")
