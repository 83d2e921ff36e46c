"""How many claims hold at the papers' scale: counts of the results in ``docs/results``, which ship with the package."""

from collections import Counter
from pathlib import Path

from lnsgd.records.claims import Kind
from lnsgd.records.verdicts import Verdict
from lnsgd.untrusted.texts import load_yaml

FILE = Path(__file__).with_name("kept.yaml")

Counts = Counter[tuple[Kind, Verdict]]


def kept_counts() -> dict[str, Counts]:
    """Return the number of claims of each figure by kind and verdict.

    ``scripts/write_summaries.py`` writes the file from the ``claims.json`` of each figure.
    """
    content = load_yaml(FILE)
    return {
        figure: Counter({(kind, verdict): n for kind, of_kind in kinds.items() for verdict, n in of_kind.items()})
        for figure, kinds in content.items()
    }
