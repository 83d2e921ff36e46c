"""Send a report to Weights & Biases."""

import base64
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lnsgd.loggers.wandb import Results, send_results
from lnsgd.records.claims import claims_frame
from lnsgd.report.content import Section


def send_report(sections: Sequence[Section], page: str, file: Path, project: str) -> None:
    """Send a page with its pictures and claims, as a run of their own.

    Args:
        sections: The sections of the page.
        page: The page.
        file: Its file, which names the run and beside which W&B keeps its own files.
        project: Name of the W&B project.
    """
    options = {"project": project, "name": file.stem, "job_type": "report"}
    send_results(_results(sections, page), file.parent, same_run=False, **options)


def _results(sections: Sequence[Section], page: str) -> Results:
    """Return what W&B gets: the page, the claims of all figures in one table, and the pictures."""
    found = [(section.name, claims_frame(section.claims)) for section in sections if section.claims]
    for figure, table in found:
        table.insert(0, "figure", figure)
    claims = pd.concat([table for _, table in found], ignore_index=True) if found else None
    pictures = {
        f"{section.name}/{picture.name}": base64.b64decode(picture.data.partition(",")[2])
        for section in sections
        for picture in section.pictures
    }
    return Results({} if claims is None else {"claims": claims}, pictures, {"report": page})
