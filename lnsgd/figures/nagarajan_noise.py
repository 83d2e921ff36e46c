"""Random labels make networks travel further: Nagarajan and Kolter, Fig. 1 (right), 5 and 6."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Picture
from rich.table import Table
from scipy import stats

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.nagarajan import (
    MARGIN,
    SETTINGS,
    Setting,
    distances,
    draw_lines,
    logarithmic,
    power_laws,
    status_table,
)

CLASSES, SIGNS, PAIR = MARGIN, "all digits, labels ±1", "digits 0 and 1, labels ±1"
NOISY = {
    CLASSES: SETTINGS[MARGIN],
    SIGNS: Setting("Nagarajan & Kolter, Fig. 5", "figures/nagarajan-signs.yaml", outputs=1),
    PAIR: Setting(
        "Nagarajan & Kolter, Fig. 6", "figures/nagarajan-signs.yaml", ["--data.classes", "[0, 1]"], outputs=1
    ),
}

FRACTION = "data.corrupted_fraction"
PARTS = [0.0, 0.25, 0.5, 0.75, 1.0]

# "Grows", as Spearman's rank correlation.
GROWS = 0.9


def corrupted(run: Runs, arm: str) -> pd.DataFrame:
    """The cells of an arm, with the corrupted part of their labels as column ``corrupted``."""
    return distances(run[arm], {FRACTION: "corrupted"})


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm in runs for claim in _of_arm(arm, corrupted(runs, arm))]


def _of_arm(arm: str, cells: pd.DataFrame) -> list[Claim]:
    largest = f"m = {cells.m.max():,}"
    by_seed = cells[cells.m == cells.m.max()].pivot(index="seed", columns="corrupted", values="r")
    order = [stats.spearmanr(by_seed.columns, row).statistic for row in by_seed.to_numpy()]
    random, clean = (power_laws(cells[cells.corrupted == part], "m", "r", ["seed"]).exponents for part in (1.0, 0.0))
    source = NOISY[arm].source
    return [
        judge(
            f"{arm}: r with random labels over r with those of the data, {largest}",
            source=source,
            paper="larger",
            measured=(by_seed[1.0] / by_seed[0.0]).tolist(),
            low=1.0,
        ),
        judge(
            f"{arm}: r grows with the part of random labels, rank correlation, {largest}",
            source=source,
            paper="grows",
            measured=order,
            low=GROWS,
        ),
        judge(
            f"{arm}: r ~ m^a is steeper with random labels, difference of a",
            source="Nagarajan & Kolter, Fig. 5",
            paper="steeper",
            measured=np.subtract(random, clean).tolist(),
            low=0.0,
        ),
    ]


def _table(runs: Runs) -> Table:
    return status_table(runs, ["corrupted", "m"], {FRACTION: "corrupted"})


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(4.4 * len(runs), 8), layout="constrained")
    axes = picture.subplots(2, len(runs), squeeze=False)
    for (above, below), arm in zip(axes.T, runs):
        cells = corrupted(runs, arm)
        draw_lines(above, cells, "corrupted", "r", by="m", label="m = {:,}")
        above.set(title=arm, xlabel="part of the labels that is random", ylim=(0, None))
        draw_lines(below, cells, "m", "r", by="corrupted", label="{:.0%} random")
        below.set(xlabel="m, training examples", ylim=(0, None))
        logarithmic(below.xaxis, cells.m)
    for axis in axes[:, 0]:
        axis.set_ylabel(r"$r = \|\theta - \theta_0\|_2$")
    return picture


FIGURE = Figure(
    name="nagarajan-noise",
    title="Random labels make networks travel further (Nagarajan & Kolter, Fig. 1 right, 5 and 6)",
    config={arm: setting.config for arm, setting in NOISY.items()},
    scales={
        "ci": Scale(
            seeds=3,
            options=["--data.source", "sample"],
            grids={PAIR: NOISY[PAIR].grid([40], [64, 256], **{FRACTION: [0.0, 0.5, 1.0]})},
        ),
        "paper": Scale(
            seeds=3,
            grids={
                CLASSES: NOISY[CLASSES].grid([80], [64, 256, 1024], **{FRACTION: PARTS}),
                SIGNS: NOISY[SIGNS].grid([80], [64, 256, 1024, 4096], **{FRACTION: PARTS}),
                PAIR: NOISY[PAIR].grid([80], [64, 256, 1024, 4096], **{FRACTION: PARTS}),
            },
        ),
        # For GPUs.
        "full": Scale(
            seeds=10,
            options=["--trainer.max_steps", "4000000"],
            grids={
                arm: setting.grid([320], [64, 256, 1024, 4096, 16384], **{FRACTION: PARTS})
                for arm, setting in NOISY.items()
            },
        ),
    },
    arms={arm: setting.options for arm, setting in NOISY.items()},
    table=_table,
    claims=_claims,
    draw=_draw,
)
