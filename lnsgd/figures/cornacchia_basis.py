"""The standard basis with labels that are pure noise: Cornacchia et al., Theorems 3 and 4."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import measured, replicas
from lnsgd.figures.style import BLUE, GREEN, GREY, ORANGE, draw_band, plain
from lnsgd.run_folder import RunFolder

# Half the number of neurons, by arm.
WIDTHS = {"k = 10": 10, "k = 100": 100, "k = 1000": 1000}
COLORS = dict(zip(WIDTHS, (BLUE, GREEN, ORANGE)))
MARKERS = dict(zip(WIDTHS, "osD"))


def _by_step_size(run: RunFolder, measure: str) -> pd.DataFrame:
    """Last values of a measure on all inputs: a row per step size, ascending, and a column per seed."""
    table = replicas(run)[["seed", "lr"]].assign(value=measured(run, measure, "train").last)
    return table.pivot(index="lr", columns="seed", values="value").sort_index()


def outputs_by_bound(run: RunFolder, k: int) -> pd.DataFrame:
    """Max |N(e_i)| over the bound 2kh in the end: a row per step size h, a column per seed."""
    outputs = _by_step_size(run, "largest_output")
    return outputs.div(2 * k * outputs.index.to_numpy(), axis=0)


def alive(run: RunFolder) -> pd.DataFrame:
    """Fraction of neurons that are active on an input in the end, in the mean over inputs."""
    return _by_step_size(run, "active_fraction")


def rank_correlation(x: np.ndarray, y: pd.Series) -> float:
    """Spearman's, with equal values of equal rank; NaN where one of both is constant."""
    return float(pd.Series(x, y.index).rank().corr(y.rank()))


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm, run in runs.items() for claim in _of_arm(arm, run)]


def _of_arm(arm: str, run: RunFolder) -> list[Claim]:
    k = WIDTHS[arm]
    bounded = outputs_by_bound(run, k) < 1
    active = alive(run)
    sizes = active.index.to_numpy()
    # Sizes are read from decimals: 1/k and 1 are among them.
    small, large, between = sizes <= 1 / k, sizes >= 1, (sizes >= 1 / k) & (sizes <= 1)
    return [
        judge(
            f"{arm}: |N(x)| < 2kh for every x in the end (fraction of runs, all seeds and {len(sizes)} step sizes h)",
            source="Cornacchia et al., Theorem 3",
            paper=1.0,
            measured=bounded.to_numpy().ravel().astype(float).tolist(),
            low=1.0,
        ),
        judge(
            f"{arm}: h ≥ 1 kills all neurons (fraction alive in the end, mean over x and h)",
            source="Cornacchia et al., Theorem 4",
            paper=0.0,
            measured=active[large].mean().tolist(),
            high=0.0,
        ),
        judge(
            f"{arm}: h ≤ 1/k leaves about half of the neurons (fraction alive in the end, mean over x and h)",
            source="Cornacchia et al., Theorem 4",
            paper="about ½",
            measured=active[small].mean().tolist(),
            low=0.4,
            high=0.6,
        ),
        judge(
            f"{arm}: in between, the larger h the fewer are alive (rank correlation, 1/k ≤ h ≤ 1, same seed)",
            source="Cornacchia et al., Theorem 4",
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
    left.set(title="Outputs in the end against the bound", ylabel="largest |N(x)| / (2kh)", ylim=(-0.03, 1.1))
    right.axhline(0.5, color=GREY, linewidth=0.8, zorder=0)
    right.axvline(1, color="black", linestyle="--", linewidth=1.2, label="h = 1")
    right.plot([], [], color=GREY, linestyle=":", linewidth=1.5, label="h = 1/k, in the colour of k")
    right.set(title="Neurons alive in the end", ylabel="active fraction, mean over x", ylim=(-0.015, 0.55))
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
    config="figures/cornacchia-basis.yaml",
    scales={"ci": Scale(seeds=3), "paper": Scale(seeds=10)},
    arms={arm: ["--model.net.widths", f"[30,{2 * k},1]"] for arm, k in WIDTHS.items()},
    claims=_claims,
    draw=_draw,
)
