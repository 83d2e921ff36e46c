"""A small step on a misclassified sample lowers the norm of every layer: Cornacchia et al., Theorem 1.

Nothing is trained: every number is from one step of one random network on one random sample, in float64. The theorem
is about "any architecture": fully connected networks, also with leaky ReLUs, with the inputs (x, 1) of the paper's
equation (2), and seen through one of ten outputs, as in equation (3); and convolutions, which share weights.
Corollary 1 is tested along the gradient flow of the hinge loss β = 0 on a few labelled points. Inputs are N(0, I) in
the paper's d = 30 dimensions, hidden layers have 8 to 120 neurons. Pictures (a) and (b) show networks with the paper's
initialization U[−√3, √3] and the logistic loss: lines and bands are medians and quartiles over layers in (a), means and
standard deviations over seeds elsewhere.
"""

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.figures.cornacchia.norm_step_networks import (
    AFFINE,
    BIASES,
    CONVOLUTIONS,
    CORRECT,
    DEPTHS,
    DIMENSION,
    FLOW,
    FLOW_ERROR,
    FURTHER,
    LEAKY,
    MISCLASSIFIED,
    OUTPUTS,
    RELU,
    TANH,
    UNIFORM,
    compute,
)
from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge, slug
from lnsgd.figures.framework.figure import COMPUTED, Figure, Runs, Scale
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, PURPLE, draw_band, plain
from lnsgd.measures.closed_forms import change_of_square
from lnsgd.untrusted.tables import read_parquet

THEOREM = "Cornacchia et al., Theorem 1"

# The statement of the paper that each further kind of network tests.
TESTED = {
    LEAKY: "norm-step-leaky",
    AFFINE: "norm-step-inputs",
    OUTPUTS: "norm-step-outputs",
    CONVOLUTIONS: "norm-step-sharing",
}

FURTHER_COLORS = matplotlib.colormaps["Blues"](np.linspace(0.4, 0.9, len(FURTHER)))

JUST_BELOW, JUST_ABOVE = 0.99, 1.01

# On a correct sample of margin m, ℓ′ = −1/(1 + eᵐ); from about m = 350 on, ‖∇‖² underflows in float64.
TINY = 1e-290


def _rows(runs: Runs, kind: str = RELU, sample: str = MISCLASSIFIED) -> pd.DataFrame:
    table = read_parquet(runs[COMPUTED].measures)
    return table[(table["kind"] == kind) & (table["sample"] == sample)]


def _change(rows: pd.DataFrame, steps: np.ndarray) -> np.ndarray:
    """Return the change of every layer's squared norm, (layers, T), for steps (T,) or (layers, T)."""
    alignment, squared_gradient = (rows[name].to_numpy()[:, None] for name in ("alignment", "squared_gradient"))
    return change_of_square(alignment, squared_gradient, steps)


def _bound(rows: pd.DataFrame) -> np.ndarray:
    """Return the largest step at which the theorem says that each layer's norm falls, 2|Nℓ′(N)|/‖∇‖², (layers, 1)."""
    return 2 * (rows["euler"].abs() / rows["squared_gradient"]).to_numpy()[:, None]


def _shrinking_fraction(rows: pd.DataFrame, steps: np.ndarray, in_bounds: bool = False) -> np.ndarray:
    """Return the fraction of each seed's layers that shrink, (seeds, T), at steps or multiples of `_bound` (T,)."""
    seeds = (of_seed for _, of_seed in rows.groupby("seed"))
    return np.array([(_change(r, steps * _bound(r) if in_bounds else steps) < 0).mean(axis=0) for r in seeds])


def _claims(runs: Runs) -> list[Claim]:
    wrong, right = _rows(runs), _rows(runs, sample=CORRECT)
    right = right[right["squared_gradient"] > TINY]
    sizes = np.sqrt(wrong["squared_norm"] * wrong["squared_gradient"])
    errors: pd.Series = (wrong["alignment"] - wrong["euler"]).abs() / sizes
    return [
        *(
            _judge_guarantee(wrong[wrong["loss"] == loss], name)
            for loss, name in (("hinge", "hinge β = 0"), ("logistic",) * 2)
        ),
        judge(
            "exact-bound",
            "misclassified: layers (fraction) that shrink at 0.99 h* but not at 1.01 h*, h* = 2Nℓ′(N)/‖∇‖²",
            CONTROL,
            source=f"{THEOREM} (its proof)",
            paper="every layer",
            measured=_fractions(wrong, _falls_up_to(wrong, _bound(wrong))),
            low=1.0,
            deterministic=True,
        ),
        judge(
            "euler",
            "misclassified: largest error of ⟨W, ∇⟩ = Nℓ′(N) over all layers, relative to ‖W‖‖∇‖",
            CONTROL,
            source=f"{THEOREM} (Euler's identity)",
            paper="exact",
            measured=errors.groupby(wrong["seed"]).max(),
            high=1e-12,
            deterministic=True,
        ),
        judge(
            "correct-grow",
            "correctly classified, logistic: layers (fraction) that grow at any step h > 0, that is, with ⟨W, ∇⟩ < 0",
            CONTROL,
            source=f"{THEOREM} (converse)",
            paper="every layer",
            measured=_fractions(right, right["alignment"].to_numpy() < 0),
            low=1.0,
            deterministic=True,
        ),
        *(_judge_architecture(_rows(runs, kind), kind) for kind in FURTHER),
        _judge_flow(_rows(runs, FLOW, FLOW)),
        *(_judge_control(_rows(runs, kind), kind) for kind in (BIASES, TANH)),
    ]


def _judge_guarantee(rows: pd.DataFrame, loss: str) -> Claim:
    """Judge one step for all layers of a network, below the bound that output and norms alone guarantee."""
    net = [rows[name] for name in ("seed", "depth", "init", "net")]
    step = JUST_BELOW * rows["guaranteed"].groupby(net).transform("min").to_numpy()[:, None]
    return judge(
        f"{slug(loss)}-shrink",
        f"misclassified, {loss}: layers (fraction) that shrink at h = 0.99 min 2|N|/(|ℓ′(N)|‖x‖²Π‖V‖²), "
        "V all layers but one",
        STATEMENTS["norm-step"],
        paper="every layer",
        measured=_fractions(rows, _change(rows, step)[:, 0] < 0),
        low=1.0,
        deterministic=True,
    )


def _falls_up_to(rows: pd.DataFrame, bound: np.ndarray) -> np.ndarray:
    below, above = _change(rows, bound * np.array([JUST_BELOW, JUST_ABOVE])).T
    return (below < 0) & (above >= 0)


def _judge_architecture(rows: pd.DataFrame, kind: str) -> Claim:
    return judge(
        f"{slug(kind)}-shrink",
        f"{kind}, misclassified, logistic: layers (fraction) that shrink at 0.99 h* but not at 1.01 h*",
        STATEMENTS[TESTED[kind]],
        paper="every layer",
        measured=_fractions(rows, _falls_up_to(rows, _bound(rows))),
        low=1.0,
        deterministic=True,
    )


def _judge_flow(rows: pd.DataFrame) -> Claim:
    falls = (rows["rise"] <= FLOW_ERROR).to_numpy() & (rows["fall"] > 0).to_numpy()
    return judge(
        "flow-falls",
        "gradient flow, hinge β = 0: layers (fraction) whose norm falls and never rises",
        STATEMENTS["norm-flow"],
        paper="monotonically decreasing",
        measured=_fractions(rows, falls),
        low=1.0,
        deterministic=True,
    )


def _judge_control(rows: pd.DataFrame, kind: str) -> Claim:
    return judge(
        f"{slug(kind)}-not-all",
        f"control, {kind}, misclassified, logistic: layers (fraction) that shrink at h → 0",
        CONTROL,
        source=f"{THEOREM} (its condition)",
        paper="not every layer",
        measured=_fractions(rows, rows["alignment"].to_numpy() > 0),
        high=0.99,
    )


def _fractions(rows: pd.DataFrame, holds: np.ndarray) -> list[float]:
    """Return the fraction of each seed's layers for which something holds."""
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
    """Yield the name, the colour and the layers of the networks of each depth."""
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
        draw_band(axis, steps, _shrinking_fraction(layers, steps), color)
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
        *((kind, color, _rows(runs, kind)) for kind, color in zip(FURTHER, FURTHER_COLORS, strict=True)),
        (BIASES, GREEN, _rows(runs, BIASES)),
        (TANH, PURPLE, _rows(runs, TANH)),
        (f"{RELU};\nsample classified correctly", ORANGE, _rows(runs, sample=CORRECT)),
    )
    for name, color, rows in arms:
        layers = rows[rows["squared_gradient"] > TINY]
        draw_band(axis, multiples, _shrinking_fraction(layers, multiples, in_bounds=True), color, name)
    axis.set_ylim(-0.02, 1.05)
    axis.set_title("(c) where the theorem applies", fontsize=10)
    axis.set(xlabel="step size h / h*,  h* = 2|Nℓ′(N)|/‖∇‖²", ylabel="fraction of layers that shrink")


FIGURE = Figure(
    name="cornacchia-norm-step",
    title="A small SGD step on a misclassified sample lowers the norm of every layer",
    scales={"ci": Scale(seeds=5), "paper": Scale(seeds=100)},
    compute=compute,
    claims=_claims,
    draw=_draw,
)
