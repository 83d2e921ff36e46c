"""A small step on a misclassified sample lowers the norm of every layer: Cornacchia et al., Theorem 1.

Nothing is trained: every number is of one step of one random network on one random sample, in float64.
Inputs are N(0, I) in the paper's d = 30 dimensions, hidden layers have 8 to 120 neurons. Pictures (a) and (b)
show networks with the paper's initialization U[−√3, √3] and the logistic loss: lines and bands are medians and
quartiles over layers in (a), means and standard deviations over seeds elsewhere.
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from math import sqrt
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd import rng
from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import COMPUTED, Figure, Runs, Scale
from lnsgd.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, draw_band, plain
from lnsgd.losses import HingeLoss, LogisticLoss
from lnsgd.measures import change_of_square, norm_step
from lnsgd.models import MLP, HeNormal, TorchDefault, Uniform, XavierNormal
from lnsgd.untrusted.tables import read_parquet

THEOREM = "Cornacchia et al., Theorem 1"

DIMENSION = 30  # the paper's default, as are the step size 1/d² and the uniform initialization
WIDTHS = (8, 120)
DEPTHS = (1, 2, 3, 4)
UNIFORM = "U[−√3, √3]"
INITS = {
    UNIFORM: Uniform(sqrt(3), biases=True),
    "PyTorch default": TorchDefault(),
    "He": HeNormal(),
    "Xavier": XavierNormal(),
}
NETS = 16  # of each seed, depth, initialization and kind

# Kinds of network. The theorem is about the first; the others are controls.
RELU, BIASES, TANH = "ReLU, no biases", "ReLU with biases", "tanh, no biases"
OPTIONS: dict[str, dict[str, Any]] = {
    RELU: {"bias": False},
    BIASES: {"bias": True},
    TANH: {"bias": False, "activation": "tanh"},
}
NO_BIASES_DRAWN = ("He", "Xavier")

LOSSES = {"hinge": HingeLoss(beta=0), "logistic": LogisticLoss()}
MISCLASSIFIED, CORRECT = "misclassified", "correct"
CASES = {
    RELU: [(MISCLASSIFIED, "hinge"), (MISCLASSIFIED, "logistic"), (CORRECT, "logistic")],
    BIASES: [(MISCLASSIFIED, "logistic")],
    TANH: [(MISCLASSIFIED, "logistic")],
}

JUST_BELOW, JUST_ABOVE = 0.99, 1.01

# On a correct sample of margin m, ℓ′ = −1/(1 + eᵐ): from m = 350 or so on float64 takes ‖∇‖² for zero.
TINY = 1e-290


def _compute(seed: int) -> pd.DataFrame:
    """A row per layer, with the numbers of `lnsgd.measures.norm_step`."""
    rows = []
    for depth, kind, init, number in product(DEPTHS, CASES, INITS, range(NETS)):
        if kind == BIASES and init in NO_BIASES_DRAWN:
            continue
        with rng.forked(seed, "init", depth, list(CASES).index(kind), list(INITS).index(init), number):
            hidden = torch.randint(WIDTHS[0], WIDTHS[1] + 1, (depth,)).tolist()
            net = MLP([DIMENSION, *hidden, 1], init=INITS[init], **OPTIONS[kind]).double()
        x = torch.randn(1, DIMENSION, dtype=torch.float64, generator=rng.generator(seed, "data", depth, number))
        described = {"kind": kind, "depth": depth, "init": init, "net": number}
        rows += [described | row for row in _layers(net, x, kind)]
    return pd.DataFrame(rows)


def _layers(net: MLP, x: torch.Tensor, kind: str) -> Iterator[dict[str, Any]]:
    with torch.no_grad():
        output = net(x).item()
    if output == 0:  # no neuron of some layer fires: neither misclassified nor correct, and no gradient
        return
    for verdict, loss in CASES[kind]:
        label = torch.tensor([int((output > 0) == (verdict == CORRECT))])
        step = norm_step(net, LOSSES[loss], x, label)
        weights = [tensor for name, tensor in step.tensors.items() if name.endswith("weight")]
        for layer, tensor in enumerate(weights):
            yield {"sample": verdict, "loss": loss, "layer": layer, "euler": step.euler, **asdict(tensor)}


def _rows(runs: Runs, kind: str = RELU, sample: str = MISCLASSIFIED) -> pd.DataFrame:
    table = read_parquet(runs[COMPUTED].measures)
    return table[(table["kind"] == kind) & (table["sample"] == sample)]


def _change(rows: pd.DataFrame, steps: np.ndarray) -> np.ndarray:
    """Change of every layer's squared norm, (layers, T), for T steps or for own steps (layers, T)."""
    alignment, squared_gradient = (rows[name].to_numpy()[:, None] for name in ("alignment", "squared_gradient"))
    return change_of_square(alignment, squared_gradient, steps)


def _bound(rows: pd.DataFrame) -> np.ndarray:
    """Up to which step the theorem says that each layer's norm falls, 2|Nℓ′(N)|/‖∇‖², (layers, 1)."""
    return 2 * (rows["euler"].abs() / rows["squared_gradient"]).to_numpy()[:, None]


def _shrinking(rows: pd.DataFrame, steps: np.ndarray, in_bounds: bool = False) -> np.ndarray:
    """Fraction of the layers of each seed that shrink, (seeds, T), at steps (T,), or at so many times `_bound`."""
    seeds = (of_seed for _, of_seed in rows.groupby("seed"))
    return np.array([(_change(r, steps * _bound(r) if in_bounds else steps) < 0).mean(axis=0) for r in seeds])


def _claims(runs: Runs) -> list[Claim]:
    wrong, right = _rows(runs), _rows(runs, sample=CORRECT)
    right = right[right["squared_gradient"] > TINY]
    sizes = np.sqrt(wrong["squared_norm"] * wrong["squared_gradient"])
    errors = (wrong["alignment"] - wrong["euler"]).abs() / sizes
    return [
        *(_falls(wrong[wrong["loss"] == loss], name) for loss, name in (("hinge", "hinge β = 0"), ("logistic",) * 2)),
        judge(
            "misclassified: layers (fraction) that shrink at 0.99 h* but not at 1.01 h*, h* = 2Nℓ′(N)/‖∇‖²",
            source=f"{THEOREM} (its proof)",
            paper="every layer",
            measured=_fractions(wrong, _falls_until(wrong, _bound(wrong))),
            low=1.0,
        ),
        judge(
            "misclassified: largest error of ⟨W, ∇⟩ = Nℓ′(N) over all layers, relative to ‖W‖‖∇‖",
            source=f"{THEOREM} (Euler's identity)",
            paper="exact",
            measured=errors.groupby(wrong["seed"]).max().tolist(),
            high=1e-12,
        ),
        judge(
            "correctly classified, logistic: layers (fraction) that grow at any step h > 0, that is, with ⟨W, ∇⟩ < 0",
            source=f"{THEOREM} (converse)",
            paper="every layer",
            measured=_fractions(right, right["alignment"].to_numpy() < 0),
            low=1.0,
        ),
        *(_control(_rows(runs, kind), kind) for kind in (BIASES, TANH)),
    ]


def _falls(rows: pd.DataFrame, loss: str) -> Claim:
    """One step for all layers of a net, below what is guaranteed from the output and the norms alone."""
    net = [rows[name] for name in ("seed", "depth", "init", "net")]
    step = JUST_BELOW * rows["guaranteed"].groupby(net).transform("min").to_numpy()[:, None]
    return judge(
        f"misclassified, {loss}: layers (fraction) that shrink at h = 0.99 min 2|N|/(|ℓ′(N)|‖x‖²Π‖V‖²), "
        "V all layers but one",
        source=THEOREM,
        paper="every layer",
        measured=_fractions(rows, _change(rows, step)[:, 0] < 0),
        low=1.0,
    )


def _falls_until(rows: pd.DataFrame, bound: np.ndarray) -> np.ndarray:
    below, above = _change(rows, bound * np.array([JUST_BELOW, JUST_ABOVE])).T
    return (below < 0) & (above >= 0)


def _control(rows: pd.DataFrame, kind: str) -> Claim:
    return judge(
        f"control, {kind}, misclassified, logistic: layers (fraction) that shrink at h → 0",
        source=f"{THEOREM} (its condition)",
        paper="not every layer",
        measured=_fractions(rows, rows["alignment"].to_numpy() > 0),
        high=0.99,
    )


def _fractions(rows: pd.DataFrame, holds: np.ndarray) -> list[float]:
    """Of the layers of each seed."""
    return pd.Series(holds, rows.index).groupby(rows["seed"]).mean().tolist()


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 3.8), layout="constrained")
    change, falling, controls = picture.subplots(1, 3)
    rows = _rows(runs)
    rows = rows[(rows["loss"] == "logistic") & (rows["init"] == UNIFORM)]
    _draw_change(change, rows)
    _draw_falling(falling, rows)
    _draw_controls(controls, runs)
    for axis, place in ((change, "upper left"), (falling, "lower left"), (controls, (0.03, 0.1))):
        axis.set_xscale("log")
        axis.tick_params(labelsize=8)
        axis.legend(frameon=False, fontsize=8, loc=place)
        plain(axis)
    return picture


def _by_depth(rows: pd.DataFrame) -> Iterator[tuple[str, Any, pd.DataFrame]]:
    """Name, colour and layers of the networks of each depth."""
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(DEPTHS)))
    for depth, color in zip(DEPTHS, colors):
        yield f"{depth} hidden layer{'s' * (depth > 1)}", color, rows[rows["depth"] == depth]


def _draw_change(axis: Axes, rows: pd.DataFrame) -> None:
    steps = np.logspace(-6, 0, 300)
    for name, color, layers in _by_depth(rows):
        relative = 100 * _change(layers, steps) / layers["squared_norm"].to_numpy()[:, None]
        low, median, high = np.quantile(relative, (0.25, 0.5, 0.75), axis=0)
        axis.plot(steps, median, color=color, label=name)
        axis.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(np.median(_bound(layers)), 0, "o", color=color, markersize=5)
    axis.plot([], [], "o", color=GREY, markersize=5, label="h*, median")
    axis.axhline(0, color=GREY, linewidth=0.8)
    _mark_step(axis)
    axis.set_yscale("symlog", linthresh=1e-3, linscale=0.5)
    axis.set_ylim(-10, 1e3)
    axis.set_title("(a) what one step does to a layer's norm", fontsize=10)
    axis.set(xlabel="step size h", ylabel="change of ‖W‖² (%)")


def _draw_falling(axis: Axes, rows: pd.DataFrame) -> None:
    steps = np.logspace(-6, 0, 300)
    for _, color, layers in _by_depth(rows):
        draw_band(axis, steps, _shrinking(layers, steps), color)
    _mark_step(axis, "paper's h = 1/d²")
    axis.set_ylim(-0.02, 1.05)
    axis.set_title("(b) how many layers shrink", fontsize=10)
    axis.set(xlabel="step size h", ylabel="fraction of layers that shrink")


def _mark_step(axis: Axes, label: str | None = None) -> None:
    axis.axvline(DIMENSION**-2, color=GREY, linewidth=0.8, linestyle="--", label=label)


def _draw_controls(axis: Axes, runs: Runs) -> None:
    multiples = np.logspace(-3, 1, 400)
    arms = (
        (RELU, BLUE, _rows(runs)),
        (BIASES, GREEN, _rows(runs, BIASES)),
        (TANH, PURPLE, _rows(runs, TANH)),
        (f"{RELU};\nsample classified correctly", ORANGE, _rows(runs, sample=CORRECT)),
    )
    for name, color, rows in arms:
        layers = rows[rows["squared_gradient"] > TINY]
        draw_band(axis, multiples, _shrinking(layers, multiples, in_bounds=True), color, name)
    axis.set_ylim(-0.02, 1.05)
    axis.set_title("(c) where the theorem applies", fontsize=10)
    axis.set(xlabel="step size h / h*,  h* = 2|Nℓ′(N)|/‖∇‖²", ylabel="fraction of layers that shrink")


FIGURE = Figure(
    name="cornacchia-norm-step",
    title="A small SGD step on a misclassified sample lowers the norm of every layer",
    scales={"ci": Scale(seeds=10), "paper": Scale(seeds=100)},
    compute=_compute,
    claims=_claims,
    draw=_draw,
)
