"""A group of W&B runs, as options of ``lnsgd fit``."""

from dataclasses import dataclass
from typing import Any

# The longest tag that W&B accepts.
_LONGEST_TAG = 64


@dataclass(frozen=True)
class WandbGroup:
    """A group of W&B runs.

    Attributes:
        name: Name of the group.
        project: W&B project; by default that of `lnsgd.loggers.WandbLogger`.
    """

    name: str
    project: str | None = None

    def logger(self, name: str, arm: str) -> dict[str, Any]:
        """Return the value of ``trainer.logger`` for a run of the group.

        Args:
            name: Name of the run.
            arm: Arm of the run; becomes its tag, by which runs can be grouped further.
        """
        options = {"group": self.name, "name": name, "job_type": "train", "tags": [arm[:_LONGEST_TAG]]}
        return {
            "class_path": "lnsgd.loggers.WandbLogger",
            **({"init_args": {"project": self.project}} if self.project is not None else {}),
            "dict_kwargs": options,
        }
