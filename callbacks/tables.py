"""Tables of a finished run, to the loggers that take tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Trainer

from lnsgd.untrusted.tables import read_parquet

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = ["replica", "measure", "split", "layer"]


def send_final_measures(trainer: Trainer, path: Path) -> None:
    """Sends the table ``measures``, see `final`, from a run's ``measures.parquet`` if it has one.

    Call it on one process.
    """
    if _takers(trainer) and path.exists():
        _send(trainer, "measures", final(read_parquet(path)))


def send_replicas(trainer: Trainer, path: Path) -> None:
    """Sends the table ``replicas``, the rows of a run's ``replicas.csv``. Call it on one process."""
    import pandas as pd

    if _takers(trainer):
        _send(trainer, "replicas", pd.read_csv(path))


def final(measures: "pd.DataFrame") -> "pd.DataFrame":
    """The last value of every number that was measured.

    Args:
        measures: Rows of ``measures.parquet``.

    Returns:
        Columns replica (where there is more than one), measure, split, layer, step, value, stderr; rows by replica, in
        the order in which they were measured.
    """
    last = measures.sort_values("step", kind="stable").drop_duplicates(_NUMBER, keep="last")
    table = last.sort_values("replica", kind="stable")[[*_NUMBER, "step", "value", "stderr"]]
    return table if table["replica"].any() else table.drop(columns="replica")


def _takers(trainer: Trainer) -> list[Any]:
    return [logger for logger in trainer.loggers if hasattr(logger, "log_table")]


def _send(trainer: Trainer, name: str, table: "pd.DataFrame") -> None:
    for logger in _takers(trainer):
        logger.log_table(name, dataframe=table, step=trainer.global_step)
