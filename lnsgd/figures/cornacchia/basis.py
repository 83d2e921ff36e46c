"""The standard basis with labels that are pure noise: Cornacchia et al., Theorems 3 and 4."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import Claim, judge, slug
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import measured, replicas, weights
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, draw_band, plain
from lnsgd.runs.folder import RunFolder

# Half the number of neurons, by arm.
WIDTHS = {"k = 10": 10, "k = 100": 100, "k = 1000": 1000}
COLORS = dict(zip(WIDTHS, (BLUE, GREEN, ORANGE)))
MARKERS = dict(zip(WIDTHS, "osD"))

CONFIG = "figures/cornacchia-basis.yaml"
INPUTS = read_setting(shipped_config(CONFIG), "model.net.widths")[0]


def _by_step_size(run: RunFolder, measure: str) -> pd.DataFrame:
    """Return the last values of a measure on all inputs, with a row per step size and a column per seed."""
    table = replicas(run)[["seed", "lr"]].assign(value=measured(run, measure, "train").last)
    return table.pivot(index="lr", columns="seed", values="value").sort_index()


def outputs_by_bound(run: RunFolder, k: int) -> pd.DataFrame:
    """Return max |N(e_i)| over the bound 2kh at the end, with a row per step size h and a column per seed."""
    outputs = _by_step_size(run, "largest_output")
    return outputs.div(2 * k * outputs.index.to_numpy(), axis=0)


def alive(run: RunFolder) -> pd.DataFrame:
    """Return the fraction of neurons that are active on an input at the end, averaged over inputs."""
    return _by_step_size(run, "active_fraction")


def alive_on_each(run: RunFolder) -> pd.DataFrame:
    """Return the fraction of neurons that are active at the end on the input where the fewest are."""
    # Row j of W·e_i is the weight W_ji.
    fewest = (weights(run, "layers.0.weight") > 0).mean(1).min(1)
    table = replicas(run)[["seed", "lr"]].assign(value=fewest)
    return table.pivot(index="lr", columns="seed", values="value").sort_index()


def rank_correlation(x: np.ndarray, y: pd.Series) -> float:
    """Return Spearman's rank correlation, with equal ranks for equal values; NaN if x or y is constant."""
    return float(pd.Series(x, y.index).rank().corr(y.rank()))


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm, run in runs.items() for claim in _judge_arm(arm, run)]


def _judge_arm(arm: str, run: RunFolder) -> list[Claim]:
    k = WIDTHS[arm]
    bounded = outputs_by_bound(run, k) < 1
    active = alive(run)
    sizes = active.index.to_numpy()
    # 1/k and 1 are themselves among the sizes, which are decimals.
    small, large, between = sizes <= 1 / k, sizes >= 1, (sizes >= 1 / k) & (sizes <= 1)
    return [
        judge(
            f"{slug(arm)}-output",
            f"{arm}: |N(x)| < 2kh for every x at the end (fraction of runs, all seeds and {len(sizes)} step sizes h)",
            STATEMENTS["basis-output"],
            paper=1.0,
            measured=bounded.to_numpy().ravel(),
            low=1.0,
            deterministic=True,
        ),
        judge(
            f"{slug(arm)}-large-step",
            f"{arm}: h ≥ 1 kills all neurons (fraction alive at the end, mean over x and h)",
            STATEMENTS["basis-large-step"],
            paper=0.0,
            measured=active[large].mean(),
            high=0.0,
        ),
        judge(
            f"{slug(arm)}-small-step",
            f"{arm}: h ≤ 1/k leaves about half of the neurons (fraction alive at the end, mean over x and h)",
            STATEMENTS["basis-small-step"],
            paper="about ½",
            measured=active[small].mean(),
            low=0.4,
            high=0.6,
        ),
        judge(
            f"{slug(arm)}-small-step-each",
            f"{arm}: h ≤ 1/k leaves neurons for every x (fraction alive at the end for the x where the fewest are, "
            "mean over h)",
            STATEMENTS["basis-small-step-each"],
            paper="some",
            measured=alive_on_each(run)[small].mean(),
            low=1 / (2 * k),
        ),
        judge(
            f"{slug(arm)}-graded",
            f"{arm}: in between, the larger h the fewer are alive (rank correlation, 1/k ≤ h ≤ 1, same seed)",
            STATEMENTS["basis-graded"],
            paper="graded",
            measured=[rank_correlation(sizes[between], active[between][seed]) for seed in active],
            high=-0.9,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 4.2), layout="constrained")
    left, right = picture.subplots(1, 2)
    for arm, run in runs.items():
        _draw_arm(left, arm, outputs_by_bound(run, WIDTHS[arm]))
        _draw_arm(right, arm, alive(run))
        right.axvline(1 / WIDTHS[arm], color=COLORS[arm], linestyle=":", linewidth=1.5, ymin=0.75)
    left.axhline(1, color="black", linestyle="--", linewidth=1.2, label="bound of Theorem 3")
    left.set(title="Outputs at the end against the bound", ylabel="largest |N(x)| / (2kh)", ylim=(-0.03, 1.1))
    right.axhline(0.5, color=GREY, linewidth=0.8, zorder=0)
    right.axvline(1, color="black", linestyle="--", linewidth=1.2, label="h = 1")
    right.plot([], [], color=GREY, linestyle=":", linewidth=1.5, label="h = 1/k, in the colour of k")
    right.set(title="Neurons alive at the end", ylabel="active fraction, mean over x", ylim=(-0.015, 0.55))
    for axis in (left, right):
        axis.set(xlabel="step size h", xscale="log")
        axis.legend(loc="lower left", framealpha=1, edgecolor="none")
        plain(axis)
    return picture


def _draw_arm(axis: Axes, arm: str, table: pd.DataFrame) -> None:
    sizes = table.index.to_numpy()
    draw_band(axis, sizes, table.to_numpy().T, COLORS[arm], arm, marker=MARKERS[arm], markersize=4, linewidth=1.5)


FIGURE = Figure(
    name="cornacchia-basis",
    title="Pure noise on the standard basis: outputs below 2kh, and who survives (Cornacchia et al., Theorems 3 and 4)",
    config=CONFIG,
    scales={"ci": Scale(seeds=3), "paper": Scale(seeds=10)},
    arms={arm: ["--model.net.widths", f"[{INPUTS},{2 * k},1]"] for arm, k in WIDTHS.items()},
    claims=_claims,
    draw=_draw,
)
