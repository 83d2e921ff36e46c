"""How often each unit fires, over training, as native histograms of the loggers that have them."""

from collections.abc import Mapping

import numpy as np
from pytorch_lightning import LightningModule, Trainer

from lnsgd.callbacks import pictures
from lnsgd.callbacks.measurement_data import Split
from lnsgd.measures import Firings

# A power of two: edges are exact, and few in every row of a logger.
BINS = 64


def wanted(trainer: Trainer) -> bool:
    """Whether a logger takes histograms, as `lnsgd.loggers.WandbLogger.log_histogram` does."""
    return any(hasattr(logger, "log_histogram") for logger in trainer.loggers)


def send(
    trainer: Trainer, module: LightningModule, split: Split, found: Mapping[int, Mapping[str, Firings]], step: int
) -> None:
    """Sends a histogram of each site: on what part of the examples each unit fires, in ``BINS`` bins of [0, 1].

    None of a site whose pre-activations are not all finite.

    It is named ``firing_rate/<split>/<layer>``, in a replicated run ``firing_rate/<split>/replica<r>/<layer>``.

    Args:
        trainer: Whose loggers get it.
        module: What is trained.
        split: On which data.
        found: By replica and site.
        step: Optimizer steps taken.
    """
    names = pictures.prefixes(module, found)
    for replica, sites in found.items():
        for layer, firings in sites.items():
            if firings.nonfinite:
                continue
            rates = (firings.fired.sum(0) / firings.examples.sum()).cpu().numpy()
            counts, edges = np.histogram(rates, BINS, (0.0, 1.0))
            for logger in trainer.loggers:
                if hasattr(logger, "log_histogram"):
                    logger.log_histogram(f"firing_rate/{split}/{names[replica]}{layer}", counts, edges, step)
