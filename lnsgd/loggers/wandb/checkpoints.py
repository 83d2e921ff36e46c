"""Log checkpoints as artifacts of a W&B run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.callbacks import Checkpoint


class CheckpointArtifacts:
    """Versions of one artifact of type ``model``; each contains a checkpoint as the file ``model.ckpt``.

    Each version is copied when it is logged, so that ``last.ckpt`` may be replaced while it is being sent. The server
    makes no new version of a checkpoint that equals the version before. Offline runs keep the copies in the data folder
    of W&B (``WANDB_DATA_DIR``), and ``wandb sync`` sends them.

    Args:
        name: Name of the artifact; by default ``model-<id of the run>``.
        policy: Policy of ``wandb.Artifact.add_file``: ``mutable`` copies files; ``immutable`` is for files that are
            never replaced.
    """

    def __init__(self, name: str | None, policy: Literal["mutable", "immutable"]) -> None:
        self._name, self._policy = name, policy
        self._logged: dict[Path, int] = {}
        self._savers: dict[str, Checkpoint] = {}

    def note(self, callback: Checkpoint) -> None:
        """Remember a callback that has saved a checkpoint."""
        self._savers[callback.state_key] = callback

    def log_new(self, run: Any, callback: Checkpoint) -> None:
        """Log what a callback has saved since the last call: its best checkpoint if it monitors one, and its newest."""
        self._log_best(run, callback)
        if (newest := _newest_of(callback)) is not None:
            self.log_changed(run, newest)

    def log_final(self, run: Any) -> None:
        """Log the best checkpoints of all callbacks, and then the newest checkpoint as ``final``."""
        for callback in self._savers.values():
            self._log_best(run, callback)
        saved = [path for path in map(_newest_of, self._savers.values()) if path is not None and path.exists()]
        if saved:
            self._log(run, max(saved, key=lambda path: path.stat().st_mtime_ns), ["final"])

    def mark_as_logged(self, path: Path) -> None:
        """Note that a checkpoint need not be logged unless it changes."""
        self._logged[path.resolve()] = path.stat().st_mtime_ns

    def log_changed(self, run: Any, path: Path, aliases: Sequence[str] = ()) -> None:
        """Log a checkpoint if it exists and has changed since it was logged."""
        if path.exists() and self._logged.get(path.resolve()) != path.stat().st_mtime_ns:
            self._log(run, path, aliases)

    def _log_best(self, run: Any, callback: Checkpoint) -> None:
        best = getattr(callback, "best_model_path", "")
        if best and getattr(callback, "monitor", None) is not None:
            self.log_changed(run, Path(best), ["best"])

    def _log(self, run: Any, path: Path, aliases: Sequence[str] = ()) -> None:
        import wandb

        self.mark_as_logged(path)
        name = self._name or f"model-{run.id}"
        artifact = wandb.Artifact(name, type="model", metadata={"original_filename": path.name})
        artifact.add_file(str(path), name="model.ckpt", policy=self._policy)
        run.log_artifact(artifact, aliases=["latest", *aliases])


def _newest_of(callback: Checkpoint) -> Path | None:
    """Return the checkpoint that a callback has saved last: ``last.ckpt``, which is saved after others, or the best."""
    path = getattr(callback, "last_model_path" if getattr(callback, "save_last", None) else "best_model_path", "")
    return Path(path) if path else None
