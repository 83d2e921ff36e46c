"""Pictures and distributions over units: into the run's folder, and to the loggers that take them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pytorch_lightning import Trainer

from lnsgd.loggers import log_histogram, log_image, takes_histograms, takes_images
from lnsgd.measuring import Distribution
from lnsgd.runs.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a picture as PNG."""
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=150)


def send_picture(trainer: Trainer, name: str, figure: "Figure") -> None:
    """Send a picture to the loggers that take images."""
    takers = [logger for logger in trainer.loggers if takes_images(logger)]
    if not takers:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())[..., :3]
    for logger in takers:
        log_image(logger, name, image, trainer.global_step)


def takes_distributions(trainer: Trainer) -> bool:
    """Return whether a logger takes histograms."""
    return any(map(takes_histograms, trainer.loggers))


def send_distributions(trainer: Trainer, prefix: str, distributions: Iterable[Distribution]) -> None:
    """Send distributions to the loggers that take histograms, see `lnsgd.loggers.log_histogram`.

    Args:
        trainer: The Trainer whose loggers get them.
        prefix: What stands for the replica in their names, see `lnsgd.measuring.Networks.prefix`.
        distributions: Distributions over units.
    """
    for distribution in distributions:
        values = distribution.values.cpu().numpy()
        for logger in trainer.loggers:
            log_histogram(logger, distribution.named(prefix), values, trainer.global_step)
