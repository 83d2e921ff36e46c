"""Render sections as one HTML page that loads nothing."""

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from lnsgd import __version__
from lnsgd.console.numbers import between, moment, number, plus_minus
from lnsgd.records.claims import HEADINGS, by_kind, count_claims
from lnsgd.records.verdicts import counted_verdicts
from lnsgd.report import plot_area
from lnsgd.report.content import Section

# Rows of a table that are shown at first.
ROWS = 200


def render(sections: Sequence[Section], made: datetime) -> str:
    """Return the page.

    Text from files is escaped. The content security policy of the page allows its own style sheet and script, by their
    hashes, and embedded pictures; nothing else can run or be loaded, whatever the files hold.

    Args:
        sections: The sections, in their order on the page.
        made: Date and time of the report.
    """
    style, script = _asset("report.css"), _asset("report.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_asset)
    )
    environment.filters.update(number=number, plus_minus=plus_minus, breakable=_breakable)
    environment.globals.update(
        between=between,
        area=plot_area,
        rows_at_first=ROWS,
        by_kind=by_kind,
        headings=HEADINGS,
        count_of=lambda claims: counted_verdicts(claim.verdict for claim in claims),
    )
    claims = [claim for section in sections for claim in section.claims]
    return environment.get_template("report.html.j2").render(
        sections=list(zip(anchors([section.name for section in sections]), sections)),
        claims=claims,
        counts=count_claims(claims),
        not_holding=len([claim for claim in claims if not claim.holds]),
        made=moment(made),
        version=__version__,
        style=style,
        script=script,
        policy=(
            f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
    )


def anchors(names: Sequence[str]) -> list[str]:
    """Return IDs of sections: their names in characters that URLs allow, each once.

    Example:
        >>> anchors(["cornacchia-mnist", "p = 0.1", "p_0.1", "p_0.1"])
        ['cornacchia-mnist', 'p-0-1', 'p-0-1-2', 'p-0-1-3']
    """
    given: list[str] = []
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "section"
        candidates = (plain if count == 1 else f"{plain}-{count}" for count in range(1, len(names) + 2))
        given.append(next(candidate for candidate in candidates if candidate not in given))
    return given


def _asset(name: str) -> str:
    return files("lnsgd.report").joinpath("page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _breakable(name: str) -> list[str]:
    """Split a long name where a line may break."""
    return re.findall(r"[^/._]*[/._]?", name)[:-1]
