"""MNIST with labels that are pure noise: at which step size do all neurons die? Cornacchia et al., § 5.

The network is that of Theorem 4: 2k neurons without biases, fixed output weights ±1, the perceptron loss (hinge with
β = 0), weights U[−1, 1]. The paper states the step size h = 0.001, but neither k nor the range of the pixels. A step
adds ±hx to a neuron's weights and depends on the output only by its sign. So if pixels are multiplied by 255, the
neurons are the same at 1/255 of the step size: here pixels are in [0, 1], and h = 0.255 stands for the paper's h with
pixels from 0 to 255.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Picture

from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import Claim, judge
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import by_setting, measured
from lnsgd.figures.framework.style import BLUE, GREY, draw_band, plain
from lnsgd.runs.folder import RunFolder

ARM = "MNIST"
CONFIG = "figures/cornacchia-mnist-pure-noise.yaml"
NEURONS = read_setting(shipped_config(CONFIG), "model.net.widths")[1]

# The paper's step size for pixels from 0 to 1, and the one that stands for it with pixels from 0 to 255.
UNIT_PIXELS, BYTE_PIXELS = 0.001, 0.255

# The paper's "much smaller than 1", read as an order of magnitude.
MUCH_SMALLER = 0.1

WHY_ALIVE = (
    "With pixels from 0 to 1 the fraction that is alive levels off at this step size. With pixels from 0 to 255 the "
    "same step size kills all neurons."
)


def alive(run: RunFolder) -> pd.DataFrame:
    """Return the fraction of neurons that fire for an image at the end, mean over images: step sizes × seeds."""
    sizes, values = by_setting(run, "lr", measured(run, "active_fraction", "train").last)
    return pd.DataFrame(values.T, index=sizes)


def smallest_deadly(fractions: pd.DataFrame) -> np.ndarray:
    """Return the smallest step size of each seed from which on no neuron is alive, (S,); NaN if there is none."""
    dead = (fractions.to_numpy() == 0)[::-1].cumprod(0)[::-1].astype(bool)
    return np.where(dead.any(0), fractions.index.to_numpy()[dead.argmax(0)], np.nan)


def _claims(runs: Runs) -> list[Claim]:
    fractions = alive(runs[ARM])
    return [
        *(
            judge(
                f"{name}-dead",
                f"h = 0.001 kills all neurons, with pixels from 0 to {top} (fraction alive at "
                "the end, mean over images)",
                STATEMENTS["mnist-pure-noise"],
                paper=0.0,
                measured=fractions.loc[size].to_numpy(),
                high=0.0,
                why=WHY_ALIVE if size == UNIT_PIXELS else "",
            )
            for name, top, size in (("unit-pixels", 1, UNIT_PIXELS), ("byte-pixels", 255, BYTE_PIXELS))
        ),
        judge(
            "smaller-step",
            "the step size from which on all neurons die, the smallest of those tried, pixels from 0 to 1",
            STATEMENTS["mnist-pure-noise-smaller"],
            paper="≪ 1",
            measured=smallest_deadly(fractions),
            high=MUCH_SMALLER,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(6.5, 4.2), layout="constrained")
    axis = picture.subplots()
    fractions = alive(runs[ARM])
    sizes = fractions.index.to_numpy()
    seeds = f", mean ± s.d. over {fractions.shape[1]} seeds" if fractions.shape[1] > 1 else ""
    draw_band(axis, sizes, fractions.to_numpy().T, BLUE, marker="o", markersize=4)
    for size, top in ((UNIT_PIXELS, 1), (BYTE_PIXELS, 255)):
        axis.axvline(size, color=GREY, linestyle=":", linewidth=1.2)
        label = f" h = 0.001,\n pixels 0 … {top}"
        axis.annotate(label, (size, 0.7), xycoords=("data", "axes fraction"), va="top", fontsize=9, color=GREY)
    axis.set(xscale="log", xlabel="step size h for pixels from 0 to 1", ylim=(-0.015, None))
    axis.set(ylabel=f"active fraction of {NEURONS} neurons, mean over images", title=f"Alive at the end{seeds}")
    plain(axis)
    return picture


FIGURE = Figure(
    name="cornacchia-mnist-pure-noise",
    title="Pure noise on MNIST: the step size from which on all neurons die (Cornacchia et al., § 5)",
    config=CONFIG,
    scales={
        "ci": Scale(
            seeds=2,
            options=[
                *("--data.source", "sample", "--data.subset", "500", "--trainer.max_steps", "60000"),
                *("--replicas.lr", "[0.001, 0.01, 0.1, 0.255, 1.0]"),
            ],
        ),
        "paper": Scale(seeds=10),
    },
    arms={ARM: []},
    claims=_claims,
    draw=_draw,
)
