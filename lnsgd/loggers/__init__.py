"""Where numbers go: ``metrics.csv`` in the run's folder, and Weights & Biases."""

from lnsgd.loggers.csv import CSVLogger
from lnsgd.loggers.scalars import log_scalars, send_scalars
from lnsgd.loggers.wandb import WandbLogger

__all__ = ["CSVLogger", "WandbLogger", "log_scalars", "send_scalars"]
