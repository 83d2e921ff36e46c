"""Runs that belong together in Weights & Biases, as options of ``lnsgd fit``."""

from dataclasses import dataclass
from typing import Any

# W&B takes no longer ones.
_LONGEST_TAG = 64


@dataclass(frozen=True)
class WandbGroup:
    """A group of runs.

    Attributes:
        name: The group's name.
        project: W&B project; by default that of `lnsgd.loggers.WandbLogger`.
    """

    name: str
    project: str | None = None

    def logger(self, name: str, arm: str) -> dict[str, Any]:
        """What ``trainer.logger`` is set to for a run of the group.

        Args:
            name: Of the run.
            arm: Which arm it belongs to; its tag, by which runs can be grouped further.
        """
        options = {"group": self.name, "name": name, "job_type": "train", "tags": [arm[:_LONGEST_TAG]]}
        return {
            "class_path": "lnsgd.loggers.WandbLogger",
            **({"init_args": {"project": self.project}} if self.project is not None else {}),
            "dict_kwargs": options,
        }
