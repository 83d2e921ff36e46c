"""What a run leaves on disk, and how files are written: whole or not at all."""

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


class NotWrittenError(OSError):
    """A file cannot be written, in the middle of the work: the disk is full, or the folder gone or read-only."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; renamed to it at the end, removed if the writer fails.

    The file is on the disk, and not only in the memory of the system, before it has its name: a machine that loses
    power leaves the old one or the new one.

    Args:
        path: The file; its folder is made if it is not there. What it held before stays until the writer has ended.

    Raises:
        NotWrittenError: the system does not let it be written; in one line.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _to_disk(part)
        part.replace(path)
        with suppress(OSError):  # not all file systems do this for folders
            _to_disk(path.parent)
    except Exception as error:
        if (why := _why_not_written(error, path, part)) is None:
            raise
        raise why from error
    finally:
        with suppress(OSError):  # that of the writer says more
            part.unlink(missing_ok=True)


# What the name of a file ends with that is being written, or was when its process was killed.
_PART = ".part"


def _to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _system_error(error: BaseException | None, paths: Sequence[Path]) -> int | None:
    """Number of the system's error that an error is, says or follows from, unless it is of another file."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno if error.filename in (None, *map(str, paths)) else None
        # Libraries that are not written in Python report errors of the system as text.
        if told := re.search(r"\b(?:os error|errno) (\d+)", str(error), re.IGNORECASE):
            return int(told[1])
        error = error.__cause__ or error.__context__
    return None


def _why_not_written(error: Exception, path: Path, part: Path) -> NotWrittenError | None:
    """One line on why a writer failed; ``None`` where the system had no part in it."""
    number = None if isinstance(error, NotWrittenError) else _system_error(error, (part, path, path.parent))
    if number is None:
        return None
    where = next((folder for folder in path.absolute().parents if folder.exists()), Path.cwd().anchor)
    written = part.stat().st_size if part.exists() else 0
    why = f"{os.strerror(number)} ({shutil.disk_usage(where).free / 1e6:,.1f} MB free, {written / 1e6:,.1f} MB written)"
    remedy = "see that the folder is there and can be written to"
    if number in _FULL:
        remedy = f"make room in {path.parent}"
    elif number in _FORBIDDEN:
        remedy = f"make {path.parent} writable"
    return NotWrittenError(f"cannot write {path}: {why}; {remedy} and start again. What was there before is whole")


class Throttle:
    """Says when a file that is replaced as a whole may be written again, so that writing stays cheap."""

    # Writing may take at most this share of the time.
    SHARE = 0.02

    def __init__(self) -> None:
        self._written_at, self._cost = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether the last time is long enough ago, at least a second."""
        return time.monotonic() - self._written_at > max(1.0, self._cost / self.SHARE)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Times one writing."""
        start = time.monotonic()
        yield
        self._written_at = time.monotonic()
        self._cost = self._written_at - start


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of one run.

    Attributes:
        path: The folder, which need not be there.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config; ``lnsgd fit --config`` runs it again."""
        return self.path / "config.yaml"

    @property
    def init(self) -> Path:
        """The initial weights θ₀ and buffers."""
        return self.path / "init.safetensors"

    @property
    def metrics(self) -> Path:
        """Everything logged, a row per step."""
        return self.path / "metrics.csv"

    @property
    def measures(self) -> Path:
        """Every measure, a row per number."""
        return self.path / "measures.parquet"

    @property
    def replicas(self) -> Path:
        """Of a replicated run: the settings of each replica, and the step at which it diverged or was stopped."""
        return self.path / "replicas.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints; the newest is ``last.ckpt``."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoints / "last.ckpt"

    @staticmethod
    def before(checkpoint: Path) -> Path:
        """What a checkpoint file held before it was written last."""
        return checkpoint.with_name(f"{checkpoint.name}.previous")

    @property
    def firings(self) -> Path:
        """How often each unit of each activation site fired for each class, at the end of training."""
        return self.path / "firings.safetensors"

    def spectral_density(self, split: str) -> Path:
        """Nodes and weights of the Hessian's spectral density on a split, at the end of training."""
        return self.path / f"spectral_density_{split}.safetensors"

    @property
    def finished(self) -> Path:
        """Written when training has reached its end: steps, which stopping rule was satisfied, device, versions."""
        return self.path / "finished.json"

    @property
    def wandb_id(self) -> Path:
        """Id of the W&B run, for going on with it."""
        return self.path / "wandb-run-id"

    @property
    def wandb_sent(self) -> Path:
        """What the W&B run has got so far: the last step of each number."""
        return self.path / "wandb-sent.json"

    @property
    def figures(self) -> Path:
        """Folder of the pictures."""
        return self.path / "figures"

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder | None":
        """The run that a checkpoint lies in, if it lies in one."""
        folder = checkpoint.resolve().parent
        run = cls(folder.parent)
        return run if run.checkpoints.name == folder.name and run.config.exists() else None

    def remove_parts(self) -> None:
        """Removes what processes that were killed while they wrote have left in the folder."""
        parts = [part for folder in (self.path, self.checkpoints) for part in folder.glob(f".*{_PART}")]
        for part in [*parts, *self.figures.rglob(f".*{_PART}")]:  # replicas have folders in that of the pictures
            if not part.name.endswith(f".{os.getpid()}{_PART}"):
                part.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Raises OSError with one clear line where the folder cannot be made or written to."""
        existing = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise OSError(
                f"cannot write to {self.path}: {existing} is not a folder you may write to ({error.strerror}); "
                "give another folder"
            ) from error
