"""What is known about the figures without importing them: titles, scales, and how many claims hold.

Importing all figures takes seconds. ``scripts/write_summaries.py`` writes ``listing.yaml`` from the figures.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lnsgd.figures.framework.kept import kept_counts
from lnsgd.records.claims import in_words
from lnsgd.untrusted.texts import load_yaml

FILE = Path(__file__).with_name("listing.yaml")


@dataclass(frozen=True)
class Listed:
    """What the list says about a figure.

    Attributes:
        title: Title of the figure.
        scales: Number of seeds at each scale.
    """

    title: str
    scales: Mapping[str, int]


def listed_figures() -> dict[str, Listed]:
    """Return the figures by name, in the order in which they are listed."""
    return {name: Listed(**about) for name, about in load_yaml(FILE).items()}


def print_listing(console: Console) -> None:
    """Print the figures with their scales, and how many claims of each hold at the papers' scale."""
    kept = kept_counts()
    table = Table()
    table.add_column("figure", no_wrap=True)
    table.add_column("scales (seeds)")
    table.add_column("title, and claims at scale paper")
    for name, figure in listed_figures().items():
        scales = ", ".join(f"{scale} ({seeds})" for scale, seeds in figure.scales.items())
        counts = in_words(kept[name]) if name in kept else "not run at scale paper"
        table.add_row(name, scales, Text(figure.title).append(f"\n{counts}", style="dim"))
    console.print(table)
    console.print(Text(f"In all, at scale paper: {in_words(sum(kept.values(), Counter()))}"))
