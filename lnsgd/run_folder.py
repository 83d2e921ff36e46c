"""What a run leaves on disk, and how files are written: whole or not at all."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; renamed to it at the end, removed if the writer fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
    """Names of the files of one run."""

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
    def figures(self) -> Path:
        """Folder of the pictures."""
        return self.path / "figures"

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder | None":
        """The run that a checkpoint lies in, if it lies in one."""
        folder = checkpoint.resolve().parent
        run = cls(folder.parent)
        return run if run.checkpoints.name == folder.name and run.config.exists() else None

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
