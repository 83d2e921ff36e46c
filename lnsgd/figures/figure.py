"""What a figure is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.claims import Claim
from lnsgd.run_folder import RunFolder

# The finished runs of each arm, one per seed.
Runs = Mapping[str, Sequence[RunFolder]]


@dataclass(frozen=True)
class Figure:
    """A figure of a paper: settings and what to make of the runs. It never trains by itself.

    Attributes:
        name: Its ID on the command line.
        title: What it shows, in one line.
        config: Config of a run, below ``configs/``.
        scales: For each scale, further command-line options.
        arms: For each arm, further command-line options.
        table: What is printed.
        claims: What is judged.
        draw: What is drawn.
    """

    name: str
    title: str
    config: str
    scales: Mapping[str, Sequence[str]]
    arms: Mapping[str, Sequence[str]]
    table: Callable[[Runs], Table]
    claims: Callable[[Runs], list[Claim]]
    draw: Callable[[Runs], Picture]

    def config_path(self) -> Path:
        """The config as shipped with the package."""
        return Path(__file__).parents[1] / "configs" / self.config
