"""Kill a command, at random or at each change of its folder, resume it, and compare it with an undisturbed one."""

import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import torch

from lnsgd.runs.folder import RunFolder
from tests.warm_commands import DEADLINE, SAID, WarmCommands, wait_until_dead

# The unfinished files of a killed command show what it was doing.
_KINDS = {"*.ckpt*.part": "checkpoint", "*.csv.*.part": "table", "*.parquet.*.part": "table"}


@dataclass
class Survived:
    """Kills that did not change the results.

    Attributes:
        kills: Number of kills.
        during: Number of kills while a file was being written, by its kind.
    """

    kills: int = 0
    during: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        during = ", ".join(f"{number} while a {kind} was written" for kind, number in self.during.items())
        return f"{self.kills} kills survived" + (f", {during}" if during else "")


class Killer:
    """Starts a command repeatedly, and kills it with all its processes.

    Args:
        commands: Starts the command.
        command: Returns the arguments of the command for a folder of results.
        same: Raises AssertionError if two folders of results differ.
        folder: Working folder.
        seed: Seed of the random moments.
    """

    def __init__(
        self,
        commands: WarmCommands,
        command: Callable[[Path], Sequence[str]],
        same: Callable[[Path, Path], None],
        folder: Path,
        seed: int,
    ) -> None:
        self._commands = commands
        self._command = command
        self._same = same
        self._folder = folder
        self._draw = random.Random(seed)
        self._seconds = self._begun = 0.0
        self._hunts = 0

    def survive(self, kills: int) -> Survived:
        """Run the command undisturbed, then with a number of kills; after it has finished, use another folder."""
        whole = self._folder / "whole"
        self._measure(whole)
        survived, folders = Survived(), count()
        while survived.kills < kills:
            out = self._folder / f"killed-{next(folders)}"
            through = False
            while survived.kills < kills and not through:
                through = self._attempt(out, survived)
            if not through:
                _finish(self._commands, self._command(out), self._folder)
            self._same(out, whole)
            left = [*out.rglob("*.part")]
            assert not left, left
        print(survived)
        return survived

    def _measure(self, whole: Path) -> None:
        """Measure how long the command takes, and how long until it writes."""
        began = time.monotonic()
        process = self._commands.start(self._command(whole), self._folder)
        self._wait(process, lambda: any(whole.rglob("config.yaml")))
        self._begun = time.monotonic() - began
        code = self._commands.end()
        assert code == 0, (code, _output(self._folder))
        self._seconds = time.monotonic() - began

    def _attempt(self, out: Path, survived: Survived) -> bool:
        """Start and kill the command once; return whether it finished before it could be killed."""
        before = _last_start(out)
        process = self._commands.start(self._command(out), self._folder)
        if self._draw.random() < 0.5:
            time.sleep(self._draw.uniform(0.5 * self._begun, self._seconds))
        else:  # in the middle of writing, some time after the start
            self._wait(process, lambda: _last_start(out) > before)
            time.sleep(self._draw.uniform(0, 0.5 * (self._seconds - self._begun)))
            self._hunts += 1
            wanted = ["*.ckpt*.part", "*.[cp][sa][vr]*.part"][self._hunts % 2]
            self._wait(process, lambda: any(out.rglob(f".{wanted}")))
        code = self._commands.kill(process)
        if code == 0:
            return True
        assert code == -signal.SIGKILL, (code, _output(self._folder))
        survived.kills += 1
        survived.during += Counter({kind for pattern, kind in _KINDS.items() if any(out.rglob(f".{pattern}"))})
        return False

    def _wait(self, process: int, found: Callable[[], bool]) -> None:
        """Wait until a condition is true, or the process has ended."""
        deadline = time.monotonic() + DEADLINE
        while not found() and _runs(process):
            assert time.monotonic() < deadline


def kill_at_changes(
    commands: WarmCommands,
    command: Callable[[Path], Sequence[str]],
    same: Callable[[Path, Path], None],
    folder: Path,
    first: int = 1,
    every: int = 1,
) -> int:
    """Kill a command just before it changes a folder, and resume it; repeat this for its changes.

    All kills between two changes leave the same files on the disk, except for unfinished files that nobody reads. So
    these moments cover all.

    Args:
        commands: Starts the command.
        command: Returns the arguments of the command for a folder of results.
        same: Raises AssertionError if two folders of results differ.
        folder: Working folder.
        first: Number of the first change at which the command is killed.
        every: Distance between the changes at which it is killed.

    Returns:
        The number of kills.
    """
    whole = folder / "whole"
    _finish(commands, command(whole), folder)
    for change in count(first, every):
        out = folder / f"killed-{change}"
        process = commands.start(command(out), folder, at_change=change)
        if (code := commands.end()) == 0:
            return (change - first) // every
        assert code == -signal.SIGKILL, (code, _output(folder))
        wait_until_dead(process)
        _finish(commands, command(out), folder)
        same(out, whole)
        assert not [*out.rglob("*.part")], change
    raise AssertionError("the command never ends")


def _finish(commands: WarmCommands, args: Sequence[str], folder: Path) -> None:
    commands.start(args, folder)
    code = commands.end()
    assert code == 0, (code, _output(folder))


def _output(folder: Path) -> str:
    return (folder / SAID).read_text()[-3000:]


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _last_start(out: Path) -> int:
    """Return when a run below a folder was last started or resumed; 0 if there is none."""
    times = [0]
    for path in out.rglob("config.yaml"):
        times.append(path.stat().st_mtime_ns)
    return max(times)


# Lightning's counts of batches are not results of replicas: a call takes as many steps as fit into some time.
_COUNTS = re.compile(r".*/epoch_loop\.(batch_progress/.*|state_dict/_batches_that_stepped)")


# Lightning's count of the batches of a validation restarts with each validation, and is empty before the first.
_OF_A_VALIDATION = re.compile(r".*/epoch_loop\.val_loop\.batch_progress/(current/.*|is_last_batch)")


def assert_same_training(one: Path, other: Path) -> None:
    """Check that weights, states, tables and records of two runs are equal bit for bit, except for times."""
    run, whole = RunFolder(one), RunFolder(other)
    a, b = (torch.load(folder.last_checkpoint, weights_only=False) for folder in (run, whole))
    flat, wanted = _plain(a), _plain(b)
    assert flat.keys() == wanted.keys()
    different = [name for name in flat if flat[name] != wanted[name] and not _OF_A_VALIDATION.match(name)]
    if (other / "replicas.csv").exists():
        different = [name for name in different if not _COUNTS.match(name)]
    assert not different, different
    for name in ("metrics.csv", "replicas.csv"):
        assert_same_table(one / name, other / name)
    if (other / "measures.parquet").exists():
        tables = [pq.read_table(folder.measures) for folder in (run, whole)]
        pd.testing.assert_frame_equal(*(table.to_pandas() for table in tables), check_exact=True)
    for path in (*other.glob("*.safetensors"), *other.glob("figures/*.csv")):
        assert (one / path.relative_to(other)).read_bytes() == path.read_bytes(), path
    assert (one / "finished.json").exists()


def assert_same_table(one: Path, other: Path) -> None:
    """Check that two text files are equal, or that both do not exist."""
    assert one.exists() == other.exists(), one
    if other.exists():
        assert one.read_text() == other.read_text(), one


def _plain(value: Any, name: str = "") -> dict[str, Any]:
    """Flatten a checkpoint into values by path, tensors as bytes, without times and paths of files."""
    if isinstance(value, torch.Tensor):
        return {name: (value.dtype, value.shape, value.detach().contiguous().view(-1).numpy().tobytes())}
    if not isinstance(value, dict | list | tuple):
        return {name: value}
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    parts = [_plain(part, f"{name}/{key}") for key, part in inner if not _is_time(str(key))]
    return {place: plain for part in parts for place, plain in part.items()}


def _is_time(key: str) -> bool:
    return key.startswith(("ModelCheckpoint", "Timer")) or key in ("seconds", "time", "spent", "RunRecord")
