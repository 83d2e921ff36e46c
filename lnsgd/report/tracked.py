"""A report as a tracker takes it."""

import base64
from collections.abc import Sequence

import pandas as pd

from lnsgd.figures.claims import claims_frame
from lnsgd.loggers.wandb import Results
from lnsgd.report.content import Section


def results_of(sections: Sequence[Section], page: str) -> Results:
    """The page, the claims of all figures in one table, and the pictures by section and file."""
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
