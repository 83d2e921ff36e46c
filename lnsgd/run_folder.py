"""What a run leaves on disk."""

from dataclasses import dataclass
from pathlib import Path


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
