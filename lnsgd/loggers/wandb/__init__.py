"""Weights & Biases: runs as they train, finished results, groups of runs."""

from lnsgd.loggers.wandb.group import WandbGroup
from lnsgd.loggers.wandb.logger import WandbLogger
from lnsgd.loggers.wandb.names import check_project
from lnsgd.loggers.wandb.results import Results, send_results

__all__ = ["Results", "WandbGroup", "WandbLogger", "check_project", "send_results"]
