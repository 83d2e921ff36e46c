"""The definition of a figure: scales, arms, claims, picture and tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.framework.claims import Claim
from lnsgd.figures.framework.configs import shipped_config
from lnsgd.runs.folder import RunFolder

# The finished run of each arm, whose replicas are its seeds.
Runs = Mapping[str, RunFolder]

# The single arm of a figure that is computed without training.
COMPUTED = "computed"


@dataclass(frozen=True)
class Scale:
    """The size of a figure's runs.

    Attributes:
        seeds: Number of seeds of each arm.
        options: Command-line options of every run.
        arms: Further options of some arms, at this scale only.
        grids: For each arm of this scale, a grid: options, named without dashes, each with the values to combine.
            Without grids each arm is one run.
    """

    seeds: int
    options: Sequence[str] = ()
    arms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    grids: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """A reading of what a paper leaves open, or of a setting that it cannot have used as stated.

    Attributes:
        about: What is read, in one line without a full stop.
        options: Command-line options of every run, which count after those of scale and arm.
        arms: Further options of some arms.
    """

    about: str
    options: Sequence[str] = ()
    arms: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a paper: its runs, its claims and its picture. A figure does not train by itself.

    A figure is made from training runs (``config`` and ``arms``) or computed without training (``compute``). The
    computed table is kept as the ``measures.parquet`` of a single arm named ``computed``, with ``seed`` as its first
    column, so that claims and picture are made from files in both cases. If the scales have grids, each arm is a sweep
    and its folder a sweep folder, which `lnsgd.sweep.load` reads.

    Attributes:
        name: Its name on the command line.
        title: What it shows, in one line without a full stop.
        config: Config of a run, as a path below ``configs/``; or one for each arm.
        scales: ``ci`` (seconds) and ``paper``, and possibly others. Only ``seeds`` counts if the figure is computed.
        arms: Command-line options of each arm.
        replicated: Whether the seeds of an arm are replicas of one run. Otherwise each seed is a run of its own, which
            a network with batch normalization needs.
        compute: Computes the rows of one seed, instead of config and arms.
        claims: Judges the claims.
        draw: Draws the picture.
        table: Makes the full table of results, printed by ``--all``, if there is one.
        comparison: Makes the table of the last screen, of at most six rows and 80 columns, if there is one.
        compared: The arms that ``comparison`` shows, if not all. It is printed as soon as these have finished.
        variants: Readings of what the paper leaves open, each with a short name, for ``--variants``. The figure's own
            settings are the first reading and need no variant.
        central: Ids of the claims that are judged under each reading; all claims on the paper if there are none.
        central_arms: The arms that run under each reading, if not all do; `claims` then judges what these allow.

    Raises:
        ValueError: both or neither of training runs and ``compute`` are given, grids at some scales only, or variants
            of a figure that does not train.
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
    comparison: Callable[[Runs], Table] | None = None
    compared: Sequence[str] = ()
    variants: Mapping[str, Variant] = field(default_factory=dict)
    central: Sequence[str] = ()
    central_arms: Sequence[str] = ()

    def __post_init__(self) -> None:
        given = (self.config is not None, bool(self.arms), self.compute is not None)
        if given not in ((True, True, False), (False, False, True)):
            raise ValueError(f"figure {self.name}: give config and arms, or compute instead")
        if len({bool(scale.grids) for scale in self.scales.values()}) > 1:
            raise ValueError(f"figure {self.name}: give grids at all scales, or at none of them")
        if self.variants and self.compute is not None:
            raise ValueError(f"figure {self.name}: variants are options of training runs, and it trains nothing")

    @property
    def swept(self) -> bool:
        """Whether the arms are sweeps."""
        return any(scale.grids for scale in self.scales.values())

    def under(self, variant: Variant) -> "Figure":
        """Return the figure under a reading: each run of a central arm has the variant's options after its own."""
        central = self.restricted_to(self.central_arms) if self.central_arms else self
        further = {arm: [*variant.options, *variant.arms.get(arm, ())] for arm in central.arms}
        scales = {
            name: replace(scale, arms={arm: [*scale.arms.get(arm, ()), *further[arm]] for arm in further})
            for name, scale in central.scales.items()
        }
        return replace(central, scales=scales, variants={})

    def restricted_to(self, arms: Sequence[str]) -> "Figure":
        """Return the figure with some of its arms only."""
        scales = {
            name: replace(scale, grids={arm: grid for arm, grid in scale.grids.items() if arm in arms})
            for name, scale in self.scales.items()
        }
        return replace(self, arms={arm: self.arms[arm] for arm in arms}, scales=scales)

    def arms_at(self, scale: str) -> list[str]:
        """Return the arms of a scale."""
        return list(self.scales[scale].grids or self.arms or (COMPUTED,))

    def config_path(self, arm: str) -> Path:
        """Return the config of an arm as shipped with the package."""
        assert self.config is not None
        return shipped_config(self.config if isinstance(self.config, str) else self.config[arm])

    def options(self, scale: str, arm: str) -> list[str]:
        """Return the command-line options of an arm's run at a scale."""
        chosen = self.scales[scale]
        return [*chosen.options, *self.arms[arm], *chosen.arms.get(arm, ())]
