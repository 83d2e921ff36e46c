"""Histograms and pictures, in the form that each logger takes."""

from inspect import signature
from typing import Any

import numpy as np

from lnsgd import compat

# A power of two: edges are exact, and few in every row of a logger.
BINS = 64


def takes_histograms(logger: Any) -> bool:
    """Return whether a logger takes histograms.

    These are loggers with a method ``log_histogram(name, counts, edges, step)``, as `lnsgd.loggers.WandbLogger` has it,
    and the loggers of both Lightnings for W&B and TensorBoard.

    Args:
        logger: A logger of the Trainer.
    """
    return hasattr(logger, "log_histogram") or compat.is_logger(logger, "WandbLogger", "TensorBoardLogger")


def log_histogram(logger: Any, name: str, values: np.ndarray, step: int) -> None:
    """Send a histogram to a logger that takes histograms; nothing to other loggers.

    Args:
        logger: A logger of the Trainer.
        name: Name of the histogram.
        values: Numbers in [0, 1], counted in ``BINS`` bins of equal width.
        step: Optimizer steps taken.
    """
    counts, edges = np.histogram(values, BINS, (0.0, 1.0))
    if hasattr(logger, "log_histogram"):
        logger.log_histogram(name, counts, edges, step)
    elif compat.is_logger(logger, "WandbLogger"):
        import wandb

        logger.log_metrics({name: wandb.Histogram(np_histogram=(counts, edges))}, step=step)
    elif compat.is_logger(logger, "TensorBoardLogger"):
        logger.experiment.add_histogram_raw(
            name,
            min=float(values.min()),
            max=float(values.max()),
            num=values.size,
            sum=float(values.sum(dtype=np.float64)),
            sum_squares=float(np.square(values, dtype=np.float64).sum()),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )


def takes_images(logger: Any) -> bool:
    """Return whether a logger takes pictures.

    These are loggers with a method ``log_image(key, images, step)``, as Lightning's ``WandbLogger`` has it, and the
    loggers of both Lightnings for TensorBoard.

    Args:
        logger: A logger of the Trainer.
    """
    return _has_log_image(logger) or compat.is_logger(logger, "TensorBoardLogger")


def log_image(logger: Any, name: str, image: np.ndarray, step: int) -> None:
    """Send a picture to a logger that takes pictures; nothing to other loggers.

    Args:
        logger: A logger of the Trainer.
        name: Name of the picture.
        image: Pixels (H, W, 3), red, green and blue, of type uint8.
        step: Optimizer steps taken.
    """
    if _has_log_image(logger):
        logger.log_image(key=name, images=[image], step=step)
    elif compat.is_logger(logger, "TensorBoardLogger"):
        logger.experiment.add_image(name, image, global_step=step, dataformats="HWC")


def _has_log_image(logger: Any) -> bool:
    # Methods of this name take other arguments in other libraries.
    method = getattr(logger, "log_image", None)
    return callable(method) and {"key", "images", "step"} <= set(signature(method).parameters)
