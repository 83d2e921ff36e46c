"""The command ``lnsgd report``: show folders on one HTML page."""

import base64
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd

from lnsgd.console.messages import counted
from lnsgd.loggers.wandb import Results, send_results
from lnsgd.records.claims import claims_frame
from lnsgd.report.content import Section
from lnsgd.report.find import read_folders
from lnsgd.report.page import render
from lnsgd.runs.writing import whole_file


def report(options: Namespace) -> None:
    """Write the page and print where it is and how large it is.

    Args:
        options: Options of the command, `lnsgd.report.options.parse`.

    Raises:
        ValueError: a folder holds nothing to report, a file is missing or damaged, or the page cannot be written.
    """
    sections = read_folders(options.folders)
    page = render(sections, datetime.now(UTC))
    with whole_file(options.out) as part:
        part.write_text(page, encoding="utf-8")
    kinds = [section.kind for section in sections]
    held = ", ".join(counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds))
    print(f"Report: {options.out} ({len(page.encode()) / 1e6:.1f} MB; {held})")
    if options.wandb is not None:
        project = {"project": options.wandb, "name": options.out.stem, "job_type": "report"}
        send_results(_results(sections, page), options.out.parent, same_run=False, **project)


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
