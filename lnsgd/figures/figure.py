"""What a figure is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.claims import Claim
from lnsgd.run_folder import RunFolder

# The finished run of each arm, with all its seeds as replicas.
Runs = Mapping[str, RunFolder]

# The one arm of a figure that computes and trains nothing.
COMPUTED = "computed"


@dataclass(frozen=True)
class Scale:
    """How large the runs of a figure are.

    Attributes:
        seeds: Number of seeds of each arm.
        options: Command-line options of every run.
        arms: For each arm, further options that hold at this scale only.
        grids: For each arm that there is at this scale, a grid: options, by their names without dashes, and the values
            of which every combination is trained. Where there are none, each arm is one run.
    """

    seeds: int
    options: Sequence[str] = ()
    arms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    grids: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a paper: settings and what to make of the runs. It never trains by itself.

    A figure is made of training runs (``config`` and ``arms``) or computed without any (``compute``).
    The table that is computed is kept as the ``measures.parquet`` of the one arm ``computed``, with a column
    ``seed`` before its own, so that claims and picture are made from what is on disk in either case. Where scales have
    grids, every arm is a sweep, and its folder that of a sweep, with all that `lnsgd.sweep.load` reads.

    Attributes:
        name: Its ID on the command line.
        title: What it shows, in one line.
        config: Config of a run, below ``configs/``; or one for each arm.
        scales: ``ci`` (seconds) and ``paper``; perhaps others. A scale of a computed figure is a number of seeds.
        arms: For each arm, command-line options.
        replicated: All seeds of an arm are trained together, as replicas of one run. Otherwise one after the other,
            each a run of its own: what a network with batch normalization needs.
        compute: In place of config and arms, the rows of one seed.
        claims: What is judged.
        draw: What is drawn.
        table: What is printed besides the claims, if anything.

    Raises:
        ValueError: neither training runs nor something to compute, or both; grids at some scales only.
    """

    name: str
    title: str
    config: str | Mapping[str, str] | None = None
    scales: Mapping[str, Scale]
    arms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    replicated: bool = True
    compute: Callable[[int], pd.DataFrame] | None = None
    claims: Callable[[Runs], list[Claim]]
    draw: Callable[[Runs], Picture]
    table: Callable[[Runs], Table] | None = None

    def __post_init__(self) -> None:
        given = (self.config is not None, bool(self.arms), self.compute is not None)
        if given not in ((True, True, False), (False, False, True)):
            raise ValueError(f"figure {self.name}: give config and arms, or compute in their place")
        if len({bool(scale.grids) for scale in self.scales.values()}) > 1:
            raise ValueError(f"figure {self.name}: give grids at all scales, or at none")

    @property
    def swept(self) -> bool:
        """Whether every arm is a sweep."""
        return any(scale.grids for scale in self.scales.values())

    def arms_at(self, scale: str) -> list[str]:
        """The arms that there are at a scale."""
        return list(self.scales[scale].grids or self.arms or (COMPUTED,))

    def config_path(self, arm: str) -> Path:
        """The config of an arm as shipped with the package."""
        assert self.config is not None
        name = self.config if isinstance(self.config, str) else self.config[arm]
        return Path(__file__).parents[1] / "configs" / name

    def options(self, scale: str, arm: str) -> list[str]:
        """Command-line options of an arm's run."""
        chosen = self.scales[scale]
        return [*chosen.options, *self.arms[arm], *chosen.arms.get(arm, ())]
