"""The folder of a run: names of its files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Attributes:
        path: The folder, which need not exist.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config; ``lnsgd fit --config`` runs it again."""
        return self.path / "config.yaml"

    @property
    def changes(self) -> Path:
        """With which other options the run was resumed, and from which step on."""
        return self.path / "changes.json"

    @property
    def init(self) -> Path:
        """The initial weights θ₀ and buffers."""
        return self.path / "init.safetensors"

    @property
    def metrics(self) -> Path:
        """Everything that was logged, one row per step."""
        return self.path / "metrics.csv"

    @property
    def measures(self) -> Path:
        """All measurements, one row per number."""
        return self.path / "measures.parquet"

    @property
    def replicas(self) -> Path:
        """For a replicated run, the settings of each replica and the step at which it diverged or was stopped."""
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
        """Return the file that holds the former content of a checkpoint file."""
        return checkpoint.with_name(f"{checkpoint.name}.previous")

    @property
    def firings(self) -> Path:
        """Firings of each unit of each activation site by class, at the end of training."""
        return self.path / "firings.safetensors"

    def spectral_density(self, split: str) -> Path:
        """Return the file of nodes and weights of the Hessian's spectral density on a split, at the end of training."""
        return self.path / f"spectral_density_{split}.safetensors"

    @property
    def finished(self) -> Path:
        """Written when training has reached its end: steps, the stopping rule that was satisfied, device, versions."""
        return self.path / "finished.json"

    @property
    def wandb_id(self) -> Path:
        """Id of the W&B run, which is continued when the run is resumed."""
        return self.path / "wandb-run-id"

    @property
    def wandb_sent(self) -> Path:
        """The last step of each number that was sent to the W&B run."""
        return self.path / "wandb-sent.json"

    @property
    def figures(self) -> Path:
        """Folder of the pictures."""
        return self.path / "figures"

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder | None":
        """Return the run to which a checkpoint belongs, or ``None`` if it is not in the folder of a run."""
        folder = checkpoint.resolve().parent
        run = cls(folder.parent)
        return run if run.checkpoints.name == folder.name and run.config.exists() else None
