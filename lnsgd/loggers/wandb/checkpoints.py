"""Checkpoints as artifacts of a W&B run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.callbacks import Checkpoint


class CheckpointArtifacts:
    """Versions of one artifact of the type ``model``, each a checkpoint as the file ``model.ckpt``.

    Every version is copied when it is logged, so that it does not matter if ``last.ckpt`` is replaced while it is being
    sent. Offline runs keep the copies in W&B's data folder (``WANDB_DATA_DIR``), and ``wandb sync`` sends them.

    Args:
        name: Of the artifact; by default ``model-<id of the run>``.
        policy: Of ``wandb.Artifact.add_file``: ``mutable`` copies, ``immutable`` takes files that are not replaced.
    """

    def __init__(self, name: str | None, policy: Literal["mutable", "immutable"]) -> None:
        self._name, self._policy = name, policy
        self._logged: dict[Path, int] = {}

    def log_new(self, run: Any, callback: Checkpoint) -> None:
        """Logs what a callback has saved since the last time: the best where it judges, then the newest."""
        self.log_best(run, callback)
        if (newest := newest_of(callback)) is not None:
            self.log_changed(run, newest)

    def log_best(self, run: Any, callback: Checkpoint) -> None:
        """Logs the best checkpoint of a callback that monitors a number, unless it was logged."""
        best = getattr(callback, "best_model_path", "")
        if best and getattr(callback, "monitor", None) is not None:
            self.log_changed(run, Path(best), ["best"])

    def take_as_logged(self, path: Path) -> None:
        """Notes that a checkpoint needs not be logged as it is now."""
        self._logged[path.resolve()] = path.stat().st_mtime_ns

    def log_changed(self, run: Any, path: Path, aliases: Sequence[str] = ()) -> None:
        """Logs a checkpoint if it is there and was not logged as it is now."""
        if path.exists() and self._logged.get(path.resolve()) != path.stat().st_mtime_ns:
            self.log(run, path, aliases)

    def log(self, run: Any, path: Path, aliases: Sequence[str] = ()) -> None:
        """Logs a checkpoint as the latest version. One that is like the version before is no new one for the server."""
        import wandb

        self.take_as_logged(path)
        name = self._name or f"model-{run.id}"
        artifact = wandb.Artifact(name, type="model", metadata={"original_filename": path.name})
        artifact.add_file(str(path), name="model.ckpt", policy=self._policy)
        run.log_artifact(artifact, aliases=["latest", *aliases])


def newest_of(callback: Checkpoint) -> Path | None:
    """The checkpoint that a callback has saved last: its ``last.ckpt``, which comes after the others, or the best."""
    path = getattr(callback, "last_model_path" if getattr(callback, "save_last", None) else "best_model_path", "")
    return Path(path) if path else None
