"""Run the stages of a plan in order, within a budget of time, and keep what they leave in one folder."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from lnsgd.runs.writing import whole_file
from scripts.gpu.plan import FOLDER, Stage
from scripts.gpu.results import ResultError, collect

# The last run of a stage: it reached its end, it went wrong, or it can be continued.
Outcome = Literal["finished", "failed", "stopped"]

# Seconds that a stage has to save its state, between SIGTERM and SIGKILL.
GRACE = 20.0

_SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(frozen=True)
class Record:
    """What is known of a stage that was begun.

    Attributes:
        command: The command, as it was run last.
        outcome: The outcome of the last run.
        why: Why the stage failed or stopped, in a few words; empty if it has finished.
        exit_code: Exit code of the last run; ``None`` if it was killed.
        seconds: Seconds of all runs of this command together.
        runs: Number of runs of this command.
        commit: Commit of the last run.
    """

    command: list[str]
    outcome: Outcome
    why: str
    exit_code: int | None
    seconds: float
    runs: int
    commit: str


class Kit:
    """The folder of the kit, and what has been run into it.

    Args:
        folder: The folder. ``stages.json`` has the records; ``json``, ``pictures`` and ``logs`` have a file for each
            stage, and ``work`` a folder.
        environment: Environment variables of the stages.
        commit: Commit of the checkout.
        grace: Seconds that a stage has to save its state.

    Raises:
        ValueError: ``stages.json`` is not a file of the kit.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], commit: str, grace: float = GRACE) -> None:
        self.folder, self.environment, self.commit, self.grace = folder, dict(environment), commit, grace
        self.records = _read(folder / "stages.json")

    def is_finished(self, stage: Stage) -> bool:
        """Return whether this command of the stage has reached its end before."""
        record = self.records.get(stage.name)
        return record is not None and record.command == self._command(stage) and record.outcome == "finished"

    def run(self, stage: Stage, seconds: float) -> Record:
        """Run a stage for at most some seconds, and keep its record and its result.

        Raises:
            KeyboardInterrupt: the kit was asked to stop; the stage has ended.
        """
        command, began = self._command(stage), time.monotonic()
        self.work(stage).mkdir(parents=True, exist_ok=True)
        limit = min(seconds, 60 * stage.minutes)
        code, interrupted = None, False
        try:
            code = self._execute(stage, command, limit)
        except KeyboardInterrupt:
            interrupted = True
        outcome, why = self._judge(stage, code, limit, interrupted)
        before = self.records.get(stage.name)
        if before is not None and before.command != command:
            before = None
        record = Record(
            command=command,
            outcome=outcome,
            why=why,
            exit_code=code,
            seconds=round((before.seconds if before else 0.0) + time.monotonic() - began, 1),
            runs=(before.runs if before else 0) + 1,
            commit=self.commit,
        )
        self.records[stage.name] = record
        with whole_file(self.folder / "stages.json") as part:
            part.write_text(json.dumps({name: asdict(one) for name, one in self.records.items()}, indent=2) + "\n")
        if interrupted:
            raise KeyboardInterrupt
        return record

    def work(self, stage: Stage) -> Path:
        """Return the folder of the stage's own files."""
        return self.folder / "work" / stage.name

    def log(self, stage: Stage) -> Path:
        """Return the file with what the stage has printed on stderr, and on stdout unless that is its result."""
        return self.folder / "logs" / f"{stage.name}.txt"

    def _command(self, stage: Stage) -> list[str]:
        return [part.replace(FOLDER, str(self.work(stage))) for part in stage.command]

    def _execute(self, stage: Stage, command: Sequence[str], limit: float) -> int | None:
        """Run a command; return its exit code, or ``None`` if it was killed at its limit."""
        log, printed = self.log(stage), self.work(stage) / "stdout.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        # A run of a stage that resumes is a part of the whole.
        with log.open("a" if stage.resumes else "w") as errors, printed.open("w") as output:
            process = subprocess.Popen(  # noqa: S603 (a command of the plan)
                command,
                stdout=output if stage.result == "json" else errors,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )
            # A stage that resumes saves its state within its time, and pytest its report, which it does on Ctrl-C only.
            is_tests = stage.result == "tests"
            patience = limit - self.grace if stage.resumes or is_tests else limit
            try:
                return _wait(process, max(0.0, patience))
            finally:
                _end(process, signal.SIGINT if is_tests else signal.SIGTERM, self.grace)

    def _judge(self, stage: Stage, code: int | None, limit: float, interrupted: bool) -> tuple[Outcome, str]:
        """Return the outcome of a run with its reason, and collect the result of a run that reached its end."""
        if interrupted:
            return "stopped", "interrupted"
        if code == 0:
            try:
                collect(stage, self.work(stage), self.folder)
            except ResultError as error:
                return "failed", str(error)
            return "finished", ""
        if code == os.EX_TEMPFAIL:
            return "stopped", "saved its state before its end"
        if stage.result == "tests":  # those that have ended are reported, whatever comes of the others
            with suppress(ResultError):
                collect(stage, self.work(stage), self.folder)
        if code is None:
            stopped_early = stage.resumes or limit < 60 * stage.minutes
            return ("stopped" if stopped_early else "failed"), f"ended after its time of {limit / 60:.3g} min"
        last = _last_line(self.log(stage))
        return "failed", f"exit code {code}" + (f": {last}" if last else "")


def run_all(kit: Kit, plan: Sequence[Stage], seconds: float | None, show: Callable[[str], None]) -> dict[str, str]:
    """Run what is not finished, in order, and return why stages were not begun, by name.

    A stage that fails does not stop the others.

    Args:
        kit: Where the stages run.
        plan: The stages.
        seconds: Budget of time for all; ``None`` for the limits of the stages only.
        show: Is called with a line before and after each stage.

    Raises:
        KeyboardInterrupt: the kit was asked to stop; the stage that ran has ended.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    left_out = {}
    for number, stage in enumerate(plan, 1):
        title = f"[{number}/{len(plan)}] {stage.name}"
        if kit.is_finished(stage):
            show(f"{title}: finished before")
            continue
        left = 60 * stage.minutes if deadline is None else deadline - time.monotonic()
        needed = 2 * kit.grace if stage.resumes else 60 * stage.minutes
        if left < needed:
            left_out[stage.name] = (
                f"no time: it needs {needed / 60:.3g} min, and {max(0.0, left) / 60:.2g} min are left"
            )
            show(f"{title}: {left_out[stage.name]}")
            continue
        show(f"{title}: begins, at most {min(left / 60, stage.minutes):.3g} min")
        began = time.monotonic()
        record = kit.run(stage, left)
        why = f" ({record.why})" if record.why else ""
        show(f"{title}: {record.outcome} after {time.monotonic() - began:.0f} s{why}")
    return left_out


@contextmanager
def interruptible() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C within this context, and Ctrl-C so even where it was ignored, as in the background.

    The commands that are started within react to both signals as usual.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _end(process: subprocess.Popen[bytes], asked_by: signal.Signals, grace: float) -> None:
    """End a command and all that it has started: first it may save its state, then it is killed."""
    if process.poll() is None:
        process.send_signal(asked_by)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C does not wait
            process.wait(grace)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _read(path: Path) -> dict[str, Record]:
    """Read the records of the stages, if there are any."""
    if not path.exists():
        return {}
    try:
        records = {name: Record(**fields) for name, fields in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a record of this kit ({error}); give another folder, or remove it") from error
    if unknown := {record.outcome for record in records.values()} - set(get_args(Outcome)):
        raise ValueError(f"{path} has the outcome {unknown.pop()!r}; give another folder, or remove the file")
    return records
