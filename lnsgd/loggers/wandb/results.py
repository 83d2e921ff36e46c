"""Finished results as a W&B run of their own: pictures, tables, pages."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsgd.loggers.wandb.attempts import Attempts
from lnsgd.loggers.wandb.run import finish_run, start_run
from lnsgd.loggers.wandb.run_id import keep_run_id, kept_run_id
from lnsgd.loggers.wandb.table import table_of
from lnsgd.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Results:
    """What is sent, by name.

    Attributes:
        tables: Rows.
        pictures: PNGs.
        pages: HTML, shown as it is.
    """

    tables: "Mapping[str, pd.DataFrame]" = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)


def send_results(results: Results, folder: Path, *, same_run: bool, **options: Any) -> None:
    """Sends results as one row of a run, offline where the server is not reached (`lnsgd.loggers.wandb.run.start_run`).

    Args:
        results: What is sent.
        folder: W&B keeps its files below it.
        same_run: Go on with the run that was sent from this folder before, whose id is kept there; what is shown is the
            newest row. Else it is a new run each time.
        options: Of ``wandb.init``: project, name, group, job_type.

    Raises:
        ValueError: what is kept there is no id.
    """
    kept = RunFolder(folder).wandb_id
    if same_run and (known := kept_run_id(kept)) is not None:
        options |= {"id": known, "resume": "allow"}
    run = start_run(offline=False, dir=str(folder), **options)
    if same_run:
        keep_run_id(kept, run.id)
    attempts = Attempts()
    attempts.make("results", lambda: run.log(_shown(results)))
    finish_run(run, attempts)


def _shown(results: Results) -> dict[str, Any]:
    import wandb
    from PIL import Image

    return {
        **{name: table_of(table, name) for name, table in results.tables.items()},
        **{name: wandb.Image(Image.open(io.BytesIO(png))) for name, png in results.pictures.items()},
        # As it is: W&B would add its own style sheet, loaded from elsewhere.
        **{name: wandb.Html(page, inject=False) for name, page in results.pages.items()},
    }
