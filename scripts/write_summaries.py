"""Write what is made from the figures and the ``claims.json`` of kept results: lists, summaries, counts of claims.

The counts by figure, kind and verdict that ``lnsgd reproduce list`` shows ship with the package. On a page, a row of a
table whose first cell links to a ``summary.md`` gets the counts in its column ``claims``. The text between
``<!-- claims -->`` and its end is the count of all claims, and that between ``<!-- statements -->`` and its end is the
table of what the papers state, with the claims that test it.
"""

import argparse
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import yaml

from lnsgd.figures.framework import kept, listing
from lnsgd.figures.framework.catalogue import FIGURES, STATEMENTS
from lnsgd.figures.framework.statements import Statement
from lnsgd.figures.framework.summary import write_summary
from lnsgd.records.claims import Claim, ClaimsRecord, by_kind, count_claims, read_claims

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = (ROOT / "README.md", RESULTS / "README.md")

# The column of a table that is written.
COLUMN = "claims"

_ROW = re.compile(r"^\| \[[^]]+\]\((?:\S+/)?([\w-]+)/summary\.md\) \|")
_TOTAL = re.compile(r"(?<=<!-- claims -->).*?(?=<!-- end of claims -->)", re.DOTALL)
_STATEMENTS = re.compile(r"(?<=<!-- statements -->).*?(?=<!-- end of statements -->)", re.DOTALL)

# Of a statement that a figure tests, but whose results are older than version 3 of ``claims.json``.
_OLD = "tested; not run again yet"


def kept_claims(results: Path = RESULTS) -> dict[str, ClaimsRecord]:
    """Read the claims of all kept results, by figure."""
    return {file.parent.name: read_claims(file) for file in sorted(results.glob("*/claims.json"))}


def counts(records: Mapping[str, ClaimsRecord]) -> str:
    """Return the text of the file that `lnsgd.figures.framework.kept` reads."""
    table = {
        figure: {
            kind: dict(Counter(claim.verdict for claim in claims)) for kind, claims in by_kind(record.claims).items()
        }
        for figure, record in records.items()
    }
    return "# Written by scripts/write_summaries.py from docs/results.\n" + yaml.safe_dump(table)


def listed() -> str:
    """Return the text of the file that `lnsgd.figures.framework.listing` reads."""
    table = {
        name: {"title": figure.title, "scales": {scale: of.seeds for scale, of in figure.scales.items()}}
        for name, figure in FIGURES.items()
    }
    text = yaml.safe_dump(table, sort_keys=False, allow_unicode=True, width=120)
    return "# Written by scripts/write_summaries.py from the figures.\n" + text


def rewritten(page: str, records: Mapping[str, ClaimsRecord]) -> str:
    """Return a page with counts of claims and the table of statements written anew.

    Args:
        page: The text of the page.
        records: The claims of each figure.

    Raises:
        KeyError: the page has a row of a figure without results.
    """
    lines, column = page.split("\n"), None
    for number, line in enumerate(lines):
        cells = [cell.strip() for cell in line.split(" | ")]
        if line.startswith("|") and COLUMN in cells:
            column = cells.index(COLUMN)
        elif not line.startswith("|"):
            column = None
        elif column is not None and (found := _ROW.match(line)):
            parts = line.split(" | ")
            parts[column] = count_claims(records[found[1]].claims)
            lines[number] = " | ".join(parts)
    total = count_claims(claim for record in records.values() for claim in record.claims)
    page = _TOTAL.sub(lambda match: total, "\n".join(lines))
    return _STATEMENTS.sub(lambda match: statements_table(records), page)


def statements_table(records: Mapping[str, ClaimsRecord]) -> str:
    """Return a table for each paper, with a row for each statement: where it is, the claims on it, and their verdicts.

    Args:
        records: The claims of each figure.
    """
    tests: dict[str, list[tuple[str, Claim]]] = {}
    for figure, record in records.items():
        for claim in record.claims:
            tests.setdefault(claim.statement, []).append((figure, claim))
    lines = []
    for paper, group in groupby(STATEMENTS.values(), key=lambda statement: statement.paper):
        statements = list(group)
        tested = sum(not statement.untested for statement in statements)
        lines += [
            "",
            f"### {paper}",
            "",
            f"{tested} of {len(statements)} statements have a claim.",
            "",
            "| where | statement | claims | verdict |",
            "|---|---|---|---|",
            *(_statement_row(statement, tests.get(statement.id, [])) for statement in statements),
        ]
    return "\n".join([*lines, "", ""])


def _statement_row(statement: Statement, tests: Sequence[tuple[str, Claim]]) -> str:
    claims = "<br>".join(f"[{figure}]({figure}/summary.md) `{claim.id}`, n = {claim.n}" for figure, claim in tests)
    verdicts = "<br>".join(claim.verdict if claim.holds else f"**{claim.verdict}**" for _, claim in tests)
    cells = (statement.section, f"“{statement.quote}”", claims, verdicts or statement.untested or _OLD)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write the summaries and the counts, and print where they are."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    records = kept_claims()
    for figure, record in records.items():
        path = RESULTS / figure / "summary.md"
        write_summary(record, path)
        print(path)
    for file, text in ((kept.FILE, counts(records)), (listing.FILE, listed())):
        file.write_text(text, encoding="utf-8")
        print(file)
    for path in PAGES:
        path.write_text(rewritten(path.read_text(encoding="utf-8"), records), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
