"""Checkpoints as artifacts of a W&B run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.callbacks import Checkpoint


class CheckpointArtifacts:
    """Versions of one artifact of the type ``model``, each a checkpoint as the file ``model.ckpt``.

    Every version is copied when it is logged, so that it does not matter if ``last.ckpt`` is replaced while it is being
    sent. One that is like the version before is no new one for the server. Offline runs keep the copies in W&B's data
    folder (``WANDB_DATA_DIR``), and ``wandb sync`` sends them.

    Args:
        name: Of the artifact; by default ``model-<id of the run>``.
        policy: Of ``wandb.Artifact.add_file``: ``mutable`` copies, ``immutable`` takes files that are not replaced.
    """

    def __init__(self, name: str | None, policy: Literal["mutable", "immutable"]) -> None:
        self._name, self._policy = name, policy
        self._logged: dict[Path, int] = {}
        self._savers: dict[str, Checkpoint] = {}

    def note(self, callback: Checkpoint) -> None:
        """Remembers a callback that has saved a checkpoint."""
        self._savers[callback.state_key] = callback

    def log_new(self, run: Any, callback: Checkpoint) -> None:
        """Logs what a callback has saved since the last time: the best where it judges, then the newest."""
        self._log_best(run, callback)
        if (newest := _newest_of(callback)) is not None:
            self.log_changed(run, newest)

    def log_final(self, run: Any) -> None:
        """Logs the newest checkpoint of all as ``final``, and before it those that were judged best."""
        for callback in self._savers.values():
            self._log_best(run, callback)
        saved = [path for path in map(_newest_of, self._savers.values()) if path is not None and path.exists()]
        if saved:
            self._log(run, max(saved, key=lambda path: path.stat().st_mtime_ns), ["final"])

    def take_as_logged(self, path: Path) -> None:
        """Notes that a checkpoint needs not be logged as it is now."""
        self._logged[path.resolve()] = path.stat().st_mtime_ns

    def log_changed(self, run: Any, path: Path, aliases: Sequence[str] = ()) -> None:
        """Logs a checkpoint if it is there and was not logged as it is now."""
        if path.exists() and self._logged.get(path.resolve()) != path.stat().st_mtime_ns:
            self._log(run, path, aliases)

    def _log_best(self, run: Any, callback: Checkpoint) -> None:
        best = getattr(callback, "best_model_path", "")
        if best and getattr(callback, "monitor", None) is not None:
            self.log_changed(run, Path(best), ["best"])

    def _log(self, run: Any, path: Path, aliases: Sequence[str] = ()) -> None:
        import wandb

        self.take_as_logged(path)
        name = self._name or f"model-{run.id}"
        artifact = wandb.Artifact(name, type="model", metadata={"original_filename": path.name})
        artifact.add_file(str(path), name="model.ckpt", policy=self._policy)
        run.log_artifact(artifact, aliases=["latest", *aliases])


def _newest_of(callback: Checkpoint) -> Path | None:
    """The checkpoint that a callback has saved last: its ``last.ckpt``, which comes after the others, or the best."""
    path = getattr(callback, "last_model_path" if getattr(callback, "save_last", None) else "best_model_path", "")
    return Path(path) if path else None
