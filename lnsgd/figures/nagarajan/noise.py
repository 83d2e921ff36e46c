"""Random labels make networks travel further: Nagarajan and Kolter, Fig. 1 (right), 5 and 6.

Appendix D.2 and D.3 name a step size and no momentum, so that the networks with labels ±1 are trained without it.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Picture
from rich.table import Table
from scipy import stats

from lnsgd.figures.framework.claims import Claim, judge, slug
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.nagarajan.shared import (
    MARGIN,
    SETTINGS,
    Setting,
    distances,
    draw_lines,
    logarithmic,
    power_laws,
    seed_exponents,
    status_table,
)
from lnsgd.figures.nagarajan.statements import STATEMENTS

CLASSES, SIGNS, CIFAR, PAIR = (
    MARGIN,
    "all digits, labels ±1",
    "CIFAR-10, labels ±1",
    "digits 0 and 1, labels ±1",
)
NOISY = {
    CLASSES: SETTINGS[MARGIN],
    SIGNS: Setting("figures/nagarajan-signs.yaml"),
    CIFAR: Setting("figures/nagarajan-signs-cifar10.yaml"),
    PAIR: Setting("figures/nagarajan-signs.yaml", ["--data.classes", "[0, 1]"]),
}

FRACTION = "data.corrupted_fraction"
PARTS = [0.0, 0.25, 0.5, 0.75, 1.0]

# The paper's "grows", as Spearman's rank correlation.
GROWS = 0.9
# "Mostly remains constant" and "non-increasing", as an exponent of H, as in nagarajan-width.
FLAT = 0.05


def corrupted_cells(run: Runs, arm: str) -> pd.DataFrame:
    """Return the cells of an arm, with the fraction of corrupted labels as column ``corrupted``."""
    return distances(run[arm], {FRACTION: "corrupted"})


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm in runs for claim in _judge_arm(arm, corrupted_cells(runs, arm))]


def _judge_arm(arm: str, cells: pd.DataFrame) -> list[Claim]:
    """Judge the claims that the grid of an arm allows, at its smallest H where the claim is not about H."""
    claims = []
    narrow = cells[cells["H"] == cells["H"].min()]
    if cells.corrupted.nunique() > 1:
        claims += _judge_noise(arm, narrow)
    if cells.H.nunique() > 1:
        claims += _judge_width(arm, cells)
    if arm == CIFAR:
        claims.append(_judge_samples(arm, narrow[narrow.corrupted == 1.0]))
    return claims


def _judge_noise(arm: str, cells: pd.DataFrame) -> list[Claim]:
    where = f"H = {cells.H.min():,}, m = {cells.m.max():,}"
    by_seed = cells[cells.m == cells.m.max()].pivot(index="seed", columns="corrupted", values="r")
    order = [stats.spearmanr(by_seed.columns, row).statistic for row in by_seed.to_numpy()]
    random, clean = (power_laws(cells[cells.corrupted == part], "m", "r", ["seed"]).exponents for part in (1.0, 0.0))
    return [
        judge(
            f"{slug(arm)}-larger",
            f"{arm}: r with random labels over r with those of the data, {where}",
            STATEMENTS["noise-grows"],
            paper="larger",
            measured=by_seed[1.0] / by_seed[0.0],
            low=1.0,
        ),
        judge(
            f"{slug(arm)}-grows",
            f"{arm}: r grows with the part of random labels, rank correlation, {where}",
            STATEMENTS["noise-grows"],
            paper="grows",
            measured=order,
            low=GROWS,
        ),
        judge(
            f"{slug(arm)}-steeper",
            f"{arm}: r ~ m^a is steeper with random labels, difference of a",
            STATEMENTS["noise-more-samples"],
            paper="steeper",
            measured=np.subtract(random, clean),
            low=0.0,
        ),
    ]


def _judge_width(arm: str, cells: pd.DataFrame) -> list[Claim]:
    """Judge r against H with random labels, and the generalization error with the labels of the data."""
    random, clean = (cells[cells.corrupted == part] for part in (1.0, 0.0))
    claims = [
        judge(
            f"{slug(arm)}-width",
            f"{arm}: with random labels r does not grow with the width, r ~ H^a, largest a over m",
            STATEMENTS["noise-width"],
            paper="flat or falling",
            measured=seed_exponents(random, "H", "r", "m", np.max),
            high=FLAT,
        )
    ]
    if len(clean):
        claims.append(
            judge(
                f"{slug(arm)}-generalization",
                f"{arm}, labels of the data, trained to a loss of 0.1: generalization error (squared loss, test minus "
                "train) ~ H^a, mean a over m",
                STATEMENTS["generalization-early"],
                paper="non-increasing",
                measured=seed_exponents(clean, "H", "gap/loss", "m", np.mean),
                high=FLAT,
            )
        )
    return claims


def _judge_samples(arm: str, cells: pd.DataFrame) -> Claim:
    return judge(
        f"{slug(arm)}-samples",
        f"{arm}: with random labels r grows with m, exponent of r ~ m^a",
        STATEMENTS["samples-grow"],
        paper="grows",
        measured=power_laws(cells, "m", "r", ["seed"]).exponents,
        low=0.0,
    )


def _table(runs: Runs) -> Table:
    return status_table(runs, ["corrupted", "H", "m"], {FRACTION: "corrupted"})


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(4.4 * len(runs), 11.5), layout="constrained")
    axes = picture.subplots(3, len(runs), squeeze=False)
    for (first, second, third), arm in zip(axes.T, runs):
        cells = corrupted_cells(runs, arm)
        narrow = cells[cells["H"] == cells["H"].min()]
        draw_lines(first, narrow, "corrupted", "r", by="m", label="m = {:,}")
        first.set(title=arm, xlabel="part of the labels that is random", xlim=(-0.05, 1.05), ylim=(0, None))
        draw_lines(second, narrow, "m", "r", by="corrupted", label="{:.0%} random")
        second.set(xlabel="m, training examples", ylim=(0, None))
        logarithmic(second.xaxis, cells.m)
        draw_lines(third, cells[cells.corrupted == 1.0], "H", "r", by="m", label="m = {:,}, 100% random")
        third.set(xlabel="H, units of each hidden layer", ylim=(0, None))
        logarithmic(third.xaxis, cells.H)
        first.text(0.02, 0.02, f"H = {cells.H.min():,}", transform=first.transAxes, fontsize=8)
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
            # Ten times the paper's step size, for seconds instead of minutes.
            options=["--data.source", "sample", "--model.optimizer.lr", "0.1"],
            grids={PAIR: NOISY[PAIR].grid([40], [64, 256], **{FRACTION: [0.0, 0.5, 1.0]})},
        ),
        "paper": Scale(
            seeds=5,
            grids={
                CLASSES: NOISY[CLASSES].grid([80], [64, 256], **{FRACTION: PARTS}),
                SIGNS: NOISY[SIGNS].grid([160, 40], [64, 256], **{FRACTION: [0.0, 0.5, 1.0]}),
                CIFAR: NOISY[CIFAR].grid([160, 40], [64, 256], **{FRACTION: [1.0]}),
                PAIR: NOISY[PAIR].grid([40], [64, 256, 1024], **{FRACTION: PARTS}),
            },
        ),
        # For GPUs.
        "full": Scale(
            seeds=10,
            options=["--trainer.max_steps", "10000000"],
            grids={
                arm: setting.grid([1280, 320, 80], [64, 256, 1024, 4096, 16384], **{FRACTION: PARTS})
                for arm, setting in NOISY.items()
            },
        ),
    },
    arms={arm: setting.options for arm, setting in NOISY.items()},
    table=_table,
    claims=_claims,
    draw=_draw,
)
