"""With one point more than dimensions label noise leaves few directions, but more than one: Gatmiry et al., Fig. 2.

The rank is that of the feature matrix ΘX, the pre-activations θ_j·x_i, at the end, without noise: the number of
singular values above a hundredth of the largest. It depends on the instance, so the figure shows its distribution.
"""

from collections import Counter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import MaxNLocator

from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import measured
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, PURPLE, plain
from lnsgd.figures.sharpness.shared import (
    COLORS,
    FEATURES,
    NO_NOISE,
    NOISE,
    PAPER,
    RANK_TOLERANCE,
    WITHOUT_NOISE,
    relative_singular_values,
)
from lnsgd.figures.sharpness.statements import STATEMENTS
from lnsgd.runs.folder import RunFolder

CONFIG = "figures/sharpness-rank-two.yaml"
EXAMPLES = read_setting(shipped_config(CONFIG), "data.examples")  # which is also the number of singular values
SINGULAR_COLORS = dict(zip(range(1, EXAMPLES + 1), ("black", ORANGE, GREEN, BLUE, PURPLE, GREY)))


def ranks(run: RunFolder) -> np.ndarray:
    """Return the rank of the features of every instance at the end, (R,)."""
    values = np.stack([relative_singular_values(run, k).last for k in range(1, EXAMPLES + 1)])
    return np.where(np.isnan(values).any(axis=0), np.nan, (values > RANK_TOLERANCE).sum(axis=0))


def _claims(runs: Runs) -> list[Claim]:
    noisy, clean = ranks(runs[NOISE]), ranks(runs[NO_NOISE])
    fall = f"rank: singular values above {RANK_TOLERANCE:g} of the largest"
    return [
        judge(
            "rank-two",
            f"label noise: features of rank two at the end (fraction of instances; {fall})",
            STATEMENTS["rank-two"],
            paper="rank two (one instance)",
            measured=noisy == 2,
            low=0.5,
        ),
        judge(
            "rank-one",
            "label noise: features of rank one at the end (fraction of instances)",
            STATEMENTS["not-rank-one"],
            paper="not one",
            measured=noisy == 1,
            high=0.1,
        ),
        judge(
            "lower-rank",
            "label noise lowers the rank (rank without noise minus rank with it, same instance)",
            STATEMENTS["low-rank"],
            paper="lower",
            measured=clean - noisy,
            low=1.0,
        ),
        judge(
            "clean-rank",
            "no noise: features of full rank, that is at least d = 5 (fraction of instances)",
            CONTROL,
            source=f"{PAPER}, Fig. 2",
            paper="full rank",
            measured=clean >= EXAMPLES - 1,
            low=0.9,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 3.9), layout="constrained")
    over_steps, spectra, histogram = picture.subplots(1, 3)
    _draw_instance(over_steps, runs[NOISE])
    _draw_spectra(spectra, runs[NOISE])
    _draw_histogram(histogram, runs)
    for axis in (over_steps, spectra):
        axis.axhline(RANK_TOLERANCE, color=GREY, linestyle=":", linewidth=1.2)
        axis.set(yscale="log", ylim=(1e-6, 1.6))
    for axis in (over_steps, spectra, histogram):
        plain(axis)
    return picture


def _draw_instance(axis: Axes, run: RunFolder) -> None:
    """Draw the singular values over training of the first instance of rank two, as in the paper."""
    found = np.flatnonzero(ranks(run) == 2)
    chosen = int(found[0]) if len(found) else 0
    for k, color in SINGULAR_COLORS.items():
        curves = measured(run, f"singular_value_{k}", "train", FEATURES)
        largest = measured(run, "singular_value_1", "train", FEATURES)
        ratio = curves.values[chosen, 1:] / largest.values[chosen, 1:]
        axis.plot(curves.steps[1:], ratio, color=color, linewidth=1.6, label=f"k = {k}")
    axis.set(xlabel="steps", xscale="log", ylabel="singular value of the features, $\\sigma_k/\\sigma_1$")
    axis.set_title(f"(a) one instance (seed {chosen}): rank two at the end", fontsize=10)
    axis.legend(frameon=False, fontsize=9, loc="lower left")


def _draw_spectra(axis: Axes, run: RunFolder) -> None:
    values = np.stack([relative_singular_values(run, k).last for k in range(1, EXAMPLES + 1)])
    number = np.arange(1, EXAMPLES + 1)
    for of_instance in values.T:
        axis.plot(number, np.maximum(of_instance, 1e-12), "o-", color=COLORS[NOISE], markersize=3, linewidth=0.8,
                  alpha=0.7)  # fmt: skip
    axis.annotate("counted for the rank", (0.97, RANK_TOLERANCE), (0, 3), ("axes fraction", "data"), "offset points",
                  ha="right", color=GREY, fontsize=9)  # fmt: skip
    axis.set(xlabel="k", ylabel="$\\sigma_k/\\sigma_1$ at the end")
    axis.set_title(f"(b) all {values.shape[1]} instances", fontsize=10)


def _draw_histogram(axis: Axes, runs: Runs) -> None:
    number = np.arange(1, EXAMPLES + 1)
    for place, arm in ((-0.2, NO_NOISE), (0.2, NOISE)):
        counts = Counter(ranks(runs[arm]))
        bars = axis.bar(number + place, [counts[k] for k in number], 0.4, color=COLORS[arm], label=arm)
        axis.bar_label(bars, [str(counts[k]) if counts[k] else "" for k in number], fontsize=9)
    axis.set(xlabel="rank of the features at the end", ylabel="instances", xticks=number)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title("(c) how often which rank", fontsize=10)
    axis.legend(frameon=False, fontsize=9, loc="upper left")


FIGURE = Figure(
    name="sharpness-rank-two",
    title="One point more than dimensions: low rank, but not rank one (Gatmiry et al., Fig. 2)",
    config=CONFIG,
    scales={
        "ci": Scale(seeds=20),
        "paper": Scale(seeds=20, options=["--model.noise_steps", "10000000", "--trainer.max_steps", "10200000"]),
    },
    arms={NO_NOISE: [*WITHOUT_NOISE, "--trainer.max_steps", "50000"], NOISE: []},
    claims=_claims,
    draw=_draw,
)
