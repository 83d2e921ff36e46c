"""On one labelled point each unit takes one of at most two values, or is zero: Blanc et al., Theorem 3.

With ‖x‖ = 1 the regularizer of Σ_j c_j φ(w_j·x) is Σ_j (φ_j² + c_j² φ′_j²), φ_j the activation of unit j. Let
p_j = c_j φ_j be the unit's share of the output, so that Σ_j p_j = y at zero error. A share p costs at least

    tanh, φ′ = 1 − φ²:        g(p) = 2|p|(√(1 + p²) − |p|) at φ⁴ = p²/(1 + p²), concave in |p|;
    logistic, φ′ = φ(1 − φ):  g(p) = p²/(1 + p²) at φ = p²/(1 + p²), convex up to p = 1/√3 and concave beyond,

so that only Σ_j g(p_j) remains to be minimized. Of two shares where g is concave, one grows at the cost of the other;
shares where g is convex become equal. At the end one tanh unit has all of y, which for y = 1 costs g(1) = 2(√2 − 1),
and the others are zero. Six logistic units with y = 2 have 1/3 each, which costs 6·g(1/3) = 0.6. Four have two minima:
½ each, which costs 0.8, or one large share and three equal small ones (a + 3b = y, g′(a) = g′(b)), which costs 0.772.
The start of a run decides in which minimum it ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from lnsgd.data import SinglePoint
from lnsgd.figures.blanc.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge, slug
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import Curves, measured, replicas
from lnsgd.figures.framework.style import BLUE, GREY, ORANGE, draw_band, mark_paper, plain, seeds_title
from lnsgd.measures import cluster_count
from lnsgd.runs.folder import RunFolder

THEOREM = "Blanc et al., Theorem 3"

CONFIG = "figures/blanc-single-point.yaml"

# Pairs (activation, output weight) of units that are this close count as one.
TOLERANCE = 0.02

Numbers = np.ndarray


@dataclass(frozen=True)
class Net:
    """A network of the figure, trained by two of its arms.

    Attributes:
        name: Beginning of the names of its arms.
        units: Number of hidden units H.
        label: The label y.
        cost: The least contribution g(p) of a share p of the output to the regularizer.
        activation: The activation of a unit at which its share contributes least.
        odd: Whether a unit with both signs changed is the same unit.
    """

    name: str
    units: int
    label: float
    cost: Callable[[Numbers], Numbers]
    activation: Callable[[Numbers], Numbers]
    odd: bool

    @property
    def noisy(self) -> str:
        """The arm with label noise."""
        return self.name

    @property
    def clean(self) -> str:
        """The arm without label noise."""
        return f"{self.name}, no noise"


def _logistic_cost(share: Numbers) -> Numbers:
    return share**2 / (1 + share**2)


TANH = Net(
    "tanh, 20 units",
    read_setting(shipped_config(CONFIG), "model.net.widths")[1],
    SinglePoint().label,
    cost=lambda p: 2 * abs(p) * (np.sqrt(1 + p**2) - abs(p)),
    activation=lambda p: (p**2 / (1 + p**2)) ** 0.25,
    odd=True,
)
SIX = Net("logistic, 6 units", 6, 2.0, cost=_logistic_cost, activation=_logistic_cost, odd=False)
FOUR = Net("logistic, 4 units", 4, 2.0, cost=_logistic_cost, activation=_logistic_cost, odd=False)
NETS = (TANH, SIX, FOUR)


class Minimum(NamedTuple):
    """A local minimum of the regularizer at zero error.

    Attributes:
        shares: The share of one unit, and the share of each other unit.
        regularizer: Its value, exact to about the square of the spacing of a grid of a million points.
    """

    shares: tuple[float, float]
    regularizer: float


def minima(net: Net) -> list[Minimum]:
    """Return the local minima of a network, the lowest first."""
    # At most one share is where g is concave, and those where g is convex are equal.
    one = np.linspace(net.label / net.units, net.label, 1_000_001)
    others = (net.label - one) / (net.units - 1)
    costs = net.cost(one) + (net.units - 1) * net.cost(others)
    steps = np.diff(costs, prepend=np.inf, append=np.inf)
    (places,) = np.nonzero((steps[:-1] <= 0) & (steps[1:] > 0))
    found = [Minimum((float(one[k]), float(others[k])), float(costs[k])) for k in places]
    return sorted(found, key=lambda minimum: minimum.regularizer)


@dataclass(frozen=True)
class Units:
    """The units of a run; both signs of a tanh unit with negative activation are changed.

    Attributes:
        steps: Steps of the measurements, (T,).
        activations: Activation of each unit, (R, H, T).
        output_weights: Output weight of each unit, (R, H, T).
    """

    steps: np.ndarray
    activations: np.ndarray
    output_weights: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """The shares c·φ of the output, (R, H, T)."""
        return self.activations * self.output_weights


def units_of(run: RunFolder, net: Net) -> Units:
    """Read the units of a run."""
    found: dict[str, list[Curves]] = {"activation": [], "output_weight": []}
    for unit in range(net.units):
        for measure, split in (("activation", "train"), ("output_weight", "")):
            found[measure].append(measured(run, measure, split, f"net.activations.0.{unit}"))
    activations, weights = (np.stack([curves.values for curves in of_units], 1) for of_units in found.values())
    signs = np.where(activations < 0, -1, 1) if net.odd else 1
    return Units(found["activation"][0].steps, signs * activations, signs * weights)


def distinct_values(run: RunFolder, net: Net) -> list[float]:
    """Count the different pairs (activation, output weight) of each seed's units at the end; zero is one of them.

    The count of a diverged seed is NaN, so that no claim holds for it.
    """
    units = units_of(run, net)
    pairs = np.stack([units.activations[..., -1], units.output_weights[..., -1]], -1)
    return [cluster_count(torch.from_numpy(of_seed), TOLERANCE) for of_seed in pairs]


def nonzero_values(run: RunFolder, net: Net) -> list[float]:
    """Count the different pairs of each seed's units at the end that are not zero; see `distinct_values`."""
    units = units_of(run, net)
    pairs = np.stack([units.activations[..., -1], units.output_weights[..., -1]], -1)
    nonzero = [of_seed[np.abs(of_seed).max(1) > TOLERANCE] for of_seed in pairs]
    return [cluster_count(torch.from_numpy(of_seed), TOLERANCE) if len(of_seed) else 0 for of_seed in nonzero]


def _regularizer(run: RunFolder) -> Curves:
    return measured(run, "implicit_regularizer", "train")


def _claims(runs: Runs) -> list[Claim]:
    return [
        *(claim for net in NETS for claim in _judge_net(runs, net)),
        judge(
            f"{slug(TANH.name)}-signs",
            f"{TANH.name}: units that are not zero have one (activation, output weight), up to the sign of both (in "
            f"every run; at the end, tolerance {TOLERANCE})",
            STATEMENTS["point-tanh-signs"],
            paper="every run",
            measured=[n <= 1 for n in nonzero_values(runs[TANH.noisy], TANH)],
            low=1.0,
            deterministic=True,
        ),
        judge(
            f"{slug(SIX.name)}-equal",
            f"{SIX.name}: all units are equal at the end (in every run)",
            CONTROL,
            source="derived: g is convex at y/H",
            paper="every run",
            measured=[n == 1 for n in distinct_values(runs[SIX.noisy], SIX)],
            low=1.0,
            deterministic=True,
        ),
        judge(
            f"{slug(FOUR.name)}-two",
            f"{FOUR.name}: two values do occur (fraction of runs that end with exactly two, not with equal units)",
            CONTROL,
            source="derived: the lower of two minima",
            paper="some runs",
            measured=[n == 2 for n in distinct_values(runs[FOUR.noisy], FOUR)],
            low=0.1,
        ),
    ]


def _judge_net(runs: Runs, net: Net) -> list[Claim]:
    where = f"at the end, tolerance {TOLERANCE}"
    up_to = "up to sign, zero counted, " if net.odd else ""
    lowest = np.array([minimum.regularizer for minimum in minima(net)])
    ends = _regularizer(runs[net.noisy]).last
    nearest = lowest[np.abs(ends[:, None] - lowest).argmin(1)]
    named = " or ".join(f"{number:.4f}" for number in lowest)
    return [
        judge(
            f"{slug(net.name)}-two-values",
            f"{net.name}: at most two values of (activation, output weight) (in every run; {up_to}{where})",
            STATEMENTS["point-two-values"],
            paper="every run",
            measured=[n <= 2 for n in distinct_values(runs[net.noisy], net)],
            low=1.0,
            deterministic=True,
        ),
        judge(
            f"{slug(net.name)}-regularizer",
            f"{net.name}: regularizer at the end over its nearest minimum at zero error, {named}",
            CONTROL,
            source=f"{THEOREM}; closed form of the minima",
            paper=1.0,
            measured=ends / nearest,
            low=0.99,
            high=1.01,
        ),
        judge(
            f"{slug(net.clean)}-more",
            f"control, {net.clean}: more than two values (fraction of runs; {up_to}{where})",
            CONTROL,
            source=f"{THEOREM} (its condition)",
            paper="most runs",
            measured=[n > 2 for n in distinct_values(runs[net.clean], net)],
            low=0.5,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 9.6), layout="constrained")
    axes = picture.subplots(3, len(NETS))
    for (plane, shares, regularizer), net in zip(axes.T, NETS):
        _draw_plane(plane, runs, net)
        _draw_shares(shares, runs, net)
        _draw_regularizer(regularizer, runs, net)
        plane.set_title(f"{net.name}, y = {net.label:g}", fontsize=11)
        for axis in (plane, shares, regularizer):
            axis.tick_params(labelsize=8)
            plain(axis)
    for row, label in enumerate(("output weight", "share of the output", "regularizer ‖∇h‖²")):
        axes[row, 0].set_ylabel(label)
    axes[0, 1].legend(handles=_plane_legend(), frameon=False, fontsize=8, loc="lower left", ncols=2)
    axes[1, 1].legend(handles=_shares_legend(), frameon=False, fontsize=8, loc="lower right")
    number = len(replicas(runs[TANH.noisy]))
    handles = [Line2D([], [], color=ORANGE, label="label noise"), Line2D([], [], color=BLUE, label="no noise")]
    title = seeds_title(number)
    # Below the least value there is no curve.
    axes[2, 2].legend(handles=handles, title=title, frameon=False, fontsize=8, title_fontsize=8, loc="lower left")
    return picture


def _draw_plane(axis: Axes, runs: Runs, net: Net) -> None:
    """Draw activations and output weights of the first seed's units."""
    noisy, clean = (units_of(runs[arm], net) for arm in (net.noisy, net.clean))
    shares = np.linspace(1e-9, 2 * net.label, 2000)
    axis.plot(net.activation(shares), shares / net.activation(shares), color=GREY, linestyle=":", linewidth=1.2)
    for activations, weights in zip(noisy.activations[0], noisy.output_weights[0]):
        axis.plot(activations, weights, color=ORANGE, linewidth=0.7, alpha=0.45, zorder=1)
    begin = noisy.activations[0, :, 0], noisy.output_weights[0, :, 0]
    axis.scatter(*begin, s=16, facecolor="none", edgecolor=GREY, linewidth=0.8)
    axis.scatter(clean.activations[0, :, -1], clean.output_weights[0, :, -1], s=18, color=BLUE, marker="x", linewidth=1)
    axis.scatter(noisy.activations[0, :, -1], noisy.output_weights[0, :, -1], s=40, color=ORANGE, zorder=3)
    for minimum, color in zip(minima(net), ("black", GREY)):
        best = np.maximum(minimum.shares, 1e-9)
        pairs = net.activation(best), best / net.activation(best)
        axis.scatter(*pairs, s=110, facecolor="none", edgecolor=color, zorder=4)
    axis.set(xlabel="activation" + (" (sign folded)" if net.odd else ""), xlim=(-0.04, 1.04))
    axis.set_ylim(-4, 9 if net is FOUR else 4)


def _plane_legend() -> list[Line2D]:
    def point(label: str, size: float, color: str, face: str, marker: str = "o") -> Line2D:
        line = Line2D([], [], marker=marker, linestyle="", markersize=size, label=label)
        line.set(markeredgecolor=color, markerfacecolor=face)
        return line

    return [
        point("a unit's start", 4, GREY, "none"),
        point("end, no noise", 4.5, BLUE, BLUE, "x"),
        point("end, label noise", 6, ORANGE, ORANGE),
        point("least, closed form", 10, "black", "none"),
        point("the other minimum", 10, GREY, "none"),
        Line2D([], [], color=GREY, linestyle=":", label="best pairs, any share"),
    ]


def _draw_shares(axis: Axes, runs: Runs, net: Net) -> None:
    """Draw the shares of the first seed's units; at the last step the error left by the last noise is gone."""
    for arm, color, width in ((net.clean, BLUE, 0.8), (net.noisy, ORANGE, 1.1)):
        units = units_of(runs[arm], net)
        axis.plot(units.steps[1:], units.shares[0, :, 1:].T, color=color, linewidth=width, alpha=0.7)
    for share in minima(net)[0].shares:
        axis.axhline(share, color="black", linestyle="--", linewidth=0.9, zorder=0)
    axis.set(xscale="log", xlabel="SGD steps", xlim=(1, units.steps[-1]))


def _shares_legend() -> list[Line2D]:
    return [
        Line2D([], [], color=ORANGE, linewidth=1.1, label="a unit, label noise"),
        Line2D([], [], color=BLUE, linewidth=0.8, label="a unit, no noise"),
        Line2D([], [], color="black", linestyle="--", linewidth=0.9, label="least, closed form"),
    ]


def _draw_regularizer(axis: Axes, runs: Runs, net: Net) -> None:
    for arm, color in ((net.clean, BLUE), (net.noisy, ORANGE)):
        curves = _regularizer(runs[arm])
        draw_band(axis, curves.steps[1:], curves.values[:, 1:], color)
    least = minima(net)[0].regularizer
    mark_paper(axis, least, f"least\n{least:.3f}", "black")
    axis.set(xscale="log", xlabel="SGD steps", xlim=(1, curves.steps[-1]))
    if net is TANH:  # it falls from 20 to below 1
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, None)


def _logistic(net: Net, lr: float, noise_steps: int, std: float = 0.5) -> list[str]:
    return [
        *("--model.net.activation", "logistic", "--model.net.widths", f"[3,{net.units},1]"),
        *("--data.label", f"{net.label:g}", "--model.optimizer.lr", str(lr), *_noise(noise_steps, std)),
    ]


def _noise(steps: int, std: float) -> list[str]:
    """Return the options for training with noise for some steps, then without."""
    annealed = ["--model.noise_steps", str(steps), "--trainer.max_steps", str(steps + 20_000)]
    return [*annealed, "--model.label_noise.std", str(std)]


_CLEAN = ["--model.label_noise.std", "0", "--trainer.max_steps", "100000"]

# Long enough for the claims, with stronger noise or larger steps: a quarter of the η²·Var·steps of scale paper for
# tanh, all of it for six units, a third for four.
_CI = {
    TANH.noisy: _noise(500_000, 0.5),
    SIX.noisy: _noise(1_250_000, 1.0),
    FOUR.noisy: ["--model.optimizer.lr", "0.05", *_noise(2_000_000, 1.0)],
}

FIGURE = Figure(
    name="blanc-single-point",
    title="One labelled point: with label noise every unit takes one of at most two values (Blanc et al., Theorem 3)",
    config=CONFIG,
    scales={"ci": Scale(seeds=5, arms=_CI), "paper": Scale(seeds=10)},
    arms={
        TANH.noisy: [],
        TANH.clean: _CLEAN,
        SIX.noisy: _logistic(SIX, lr=0.05, noise_steps=5_000_000),
        SIX.clean: [*_logistic(SIX, lr=0.05, noise_steps=0), *_CLEAN],
        FOUR.noisy: _logistic(FOUR, lr=0.02, noise_steps=40_000_000, std=1.0),
        FOUR.clean: [*_logistic(FOUR, lr=0.02, noise_steps=0), *_CLEAN],
    },
    claims=_claims,
    draw=_draw,
)
