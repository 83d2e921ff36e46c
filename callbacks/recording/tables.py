"""Send tables of a finished run to the loggers that accept tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Trainer

from lnsgd.records.measures import final_table, read_measures
from lnsgd.records.replicas import read_replicas

if TYPE_CHECKING:
    import pandas as pd


def send_final_measures(trainer: Trainer, path: Path) -> None:
    """Send the final measures of a run that has measured any, as the table ``measures``. Call it on one process."""
    if _takers(trainer) and path.exists():
        _send(trainer, "measures", final_table(read_measures(path)))


def send_replicas(trainer: Trainer, path: Path) -> None:
    """Send the rows of ``replicas.csv`` as the table ``replicas``. Call it on one process."""
    if _takers(trainer):
        _send(trainer, "replicas", read_replicas(path))


def _takers(trainer: Trainer) -> list[Any]:
    return [logger for logger in trainer.loggers if hasattr(logger, "log_table")]


def _send(trainer: Trainer, name: str, table: "pd.DataFrame") -> None:
    for logger in _takers(trainer):
        logger.log_table(name, dataframe=table, step=trainer.global_step)
