"""Pictures of the trained network: which replicas are drawn, and where the pictures go."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pytorch_lightning import LightningModule, Trainer

from lnsgd.modules.replicated import ReplicatedModule
from lnsgd.replicas import groups
from lnsgd.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def prefixes(module: LightningModule, replicas: Iterable[int]) -> dict[int, str]:
    """What stands before the name of a picture: nothing, or which replica it belongs to."""
    return {r: f"replica{r}/" if isinstance(module, ReplicatedModule) else "" for r in replicas}


def drawn(module: LightningModule) -> list[int]:
    """Whose pictures are drawn: of replicas that differ in nothing but the seed, the first that has not diverged."""
    if not isinstance(module, ReplicatedModule):
        return [0]
    living = set(module.frozen.living)
    of_groups = [[r for r in members if r in living] for members in groups(module.replicas).values()]
    return [members[0] for members in of_groups if members]


def save(figure: "Figure", path: Path) -> None:
    """Writes a PNG."""
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=150)


def send(trainer: Trainer, name: str, figure: "Figure") -> None:
    """Sends a figure to the loggers that take images."""
    takers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
    if not takers:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for logger in takers:
        logger.log_image(name, [np.asarray(canvas.buffer_rgba())], step=trainer.global_step)
