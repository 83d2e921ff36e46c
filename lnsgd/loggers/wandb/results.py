"""Send finished results as a separate W&B run: pictures, tables, pages."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsgd.loggers.wandb.identifiers import read_run_id, write_run_id
from lnsgd.loggers.wandb.run import finish_run, start_run
from lnsgd.loggers.wandb.sending import Sender
from lnsgd.loggers.wandb.table import table_of
from lnsgd.runs.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Results:
    """Results to send, by name.

    Attributes:
        tables: Data frames.
        pictures: PNG images.
        pages: HTML, displayed unchanged.
    """

    tables: "Mapping[str, pd.DataFrame]" = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)


def send_results(results: Results, folder: Path, *, same_run: bool, **options: Any) -> None:
    """Send results as one row of a run; offline if the server is unreachable (`lnsgd.loggers.wandb.run.start_run`).

    Args:
        results: The results.
        folder: Folder below which W&B keeps its files.
        same_run: Continue the run that was sent from this folder before, whose id is kept there; W&B displays its
            newest row. Otherwise each call makes a new run.
        options: Arguments of ``wandb.init``: project, name, group, job_type.

    Raises:
        ValueError: The file of the id does not contain one.
    """
    file = RunFolder(folder).wandb_id
    if same_run and (known := read_run_id(file)) is not None:
        options |= {"id": known, "resume": "allow"}
    run = start_run(offline=False, dir=str(folder), **options)
    if same_run:
        write_run_id(file, run.id)
    sender = Sender()
    sender.send("results", lambda: run.log(_as_values(results)))
    finish_run(run, sender)


def _as_values(results: Results) -> dict[str, Any]:
    import wandb
    from PIL import Image

    return {
        **{name: table_of(table, name) for name, table in results.tables.items()},
        **{name: wandb.Image(Image.open(io.BytesIO(png))) for name, png in results.pictures.items()},
        # Without injection: W&B would add its own style sheet, loaded from elsewhere.
        **{name: wandb.Html(page, inject=False) for name, page in results.pages.items()},
    }
