"""The norm of one neuron decays if its labels are pure noise: Cornacchia et al., Fig. 2 and Theorem 2.

The neuron is linear, N(x) = w·x, as in the theorem. On x ~ N(0, I) the perceptron loss makes a step on half of the
examples and changes ‖w‖² by −2h‖w‖/√(2π) + h²d/2 on average: a large norm falls by h/√(2π) a step, until both terms are
equal at √(2π)/4·d·h. The logistic loss subtracts h·tanh(w·x/2)/2·x on average over labels: as much far from zero, less
near it, so that the equilibrium is at √(d·h/2). A ReLU neuron fires on half of the examples, falls half as fast, and
has the same equilibria. With a bias, the norm is that of (w, b).
"""

import json
import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import Curves, measured, replicas
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, PURPLE, draw_band, plain
from lnsgd.runs.folder import RunFolder

CONFIG = "figures/cornacchia-neuron.yaml"
DIMENSION = read_setting(shipped_config(CONFIG), "model.net.widths")[0]
STEP_SIZE = 1 / DIMENSION**2  # which the config rounds to eight digits

# The step sizes and the other dimension that show how slopes and equilibria scale.
STEP_SIZES = (STEP_SIZE / 2, STEP_SIZE, 2 * STEP_SIZE, 4 * STEP_SIZE)
WIDE = 4 * DIMENSION

HINGE, LOGISTIC = "hinge", "logistic"
HINGE_WIDE, LOGISTIC_WIDE = f"hinge, d = {WIDE}", f"logistic, d = {WIDE}"
BIAS, RELU = "hinge, with a bias", "hinge, ReLU neuron"
COLORS = {HINGE: ORANGE, LOGISTIC: BLUE, BIAS: GREEN, RELU: PURPLE}

# The slope in units of h a step, the equilibria in units of d·h.
SLOPE = -1 / math.sqrt(2 * math.pi)
HINGE_EQUILIBRIUM = math.sqrt(2 * math.pi) / 4
LOGISTIC_EQUILIBRIUM = math.sqrt(1 / (2 * DIMENSION * STEP_SIZE))

# The constant of the proof with a bias: the norm of (w, b) falls by C·h/2 a step or more, as long as it is above d·h/C.
PROOF_CONSTANT = math.exp(-0.5) / (2 * math.sqrt(2 * math.pi))

# The slope is fitted up to this share of the steps in which a norm √d falls to zero along the predicted line.
LINE_SHARE = 0.7


def norms_of(run: RunFolder, step_size: float = STEP_SIZE) -> Curves:
    """Return the norm of all weights, bias included, of the replicas with a step size."""
    weight = measured(run, "norm", layer="net.layers.0.weight")
    values = weight.values
    if read_setting(run.config, "model.net.bias"):
        values = np.hypot(values, measured(run, "norm", layer="net.layers.0.bias").values)
    rates = replicas(run)["lr"].fillna(STEP_SIZE).to_numpy(dtype=float)
    chosen = np.isclose(rates, step_size, rtol=1e-3)
    return Curves(weight.steps, values[chosen], weight.stderrs[chosen])


def line_end(step_size: float = STEP_SIZE, slope: float = SLOPE, dimension: int = DIMENSION) -> float:
    """Return the step up to which a slope is fitted."""
    return LINE_SHARE * math.sqrt(dimension) / (-slope * step_size)


def slopes(norms: Curves, end: float, step_size: float = STEP_SIZE) -> list[float]:
    """Fit the slope of each seed's norm up to a step by least squares, in units of h a step."""
    early = norms.steps <= end
    return [float(np.polyfit(norms.steps[early], of_seed[early], 1)[0]) / step_size for of_seed in norms.values]


def linearity(norms: Curves, end: float) -> list[float]:
    """Return the squared correlation of each seed's norm with the step, up to a step."""
    early = norms.steps <= end
    return [float(np.corrcoef(norms.steps[early], of_seed[early])[0, 1] ** 2) for of_seed in norms.values]


def equilibria(norms: Curves) -> np.ndarray:
    """Return the mean norm of each seed over the last quarter of the run, (R,)."""
    return norms.values[:, norms.steps > 0.75 * norms.steps[-1]].mean(axis=1)


def decay_steps(norms: Curves, share: float = 0.1) -> np.ndarray:
    """Return the first measured step at which each seed's norm is below a share of its initial value, or NaN."""
    below = norms.values < share * norms.values[:, :1]
    return np.where(below.any(axis=1), norms.steps[below.argmax(axis=1)], np.nan)


def exponents(by_size: Mapping[float, np.ndarray]) -> list[float]:
    """Fit the exponent of a power of h, or of d, to the numbers of each seed, (R,) by size."""
    sizes = np.log(list(by_size))
    return [float(np.polyfit(sizes, of_seed, 1)[0]) for of_seed in np.log(np.stack(list(by_size.values()), axis=1))]


def _claims(runs: Runs) -> list[Claim]:
    return [*_judge_hinge(runs), *_judge_logistic(runs), *_judge_scaling(runs), *_judge_variants(runs)]


def _judge_hinge(runs: Runs) -> list[Claim]:
    norms, end = norms_of(runs[HINGE]), line_end()
    until = f"steps 0 to {end:,.0f}"
    of_dh = equilibria(norms) / (DIMENSION * STEP_SIZE)
    return [
        judge(
            "hinge-linear",
            f"hinge: the norm falls along a line (R² of norm against step, {until})",
            STATEMENTS["neuron-linear"],
            paper="linear",
            measured=linearity(norms, end),
            low=0.98,
        ),
        judge(
            "hinge-slope",
            f"hinge: its slope, in h a step ({until})",
            CONTROL,
            source="derived from Theorem 2's setting: −1/√(2π)",
            paper=SLOPE,
            measured=slopes(norms, end),
            low=1.1 * SLOPE,
            high=0.9 * SLOPE,
        ),
        judge(
            "hinge-equilibrium-order",
            "hinge: at the end the norm is of order d·h (norm/(d·h), last quarter of the run)",
            STATEMENTS["neuron-equilibrium"],
            paper="equilibrium of norm dh",
            measured=of_dh,
            low=1 / 3,
            high=3,
        ),
        judge(
            "hinge-equilibrium",
            "hinge: equilibrium of the norm/(d·h), last quarter of the run",
            CONTROL,
            source="derived from Theorem 2's setting: √(2π)/4",
            paper=HINGE_EQUILIBRIUM,
            measured=of_dh,
            low=0.9 * HINGE_EQUILIBRIUM,
            high=1.1 * HINGE_EQUILIBRIUM,
        ),
    ]


def _judge_logistic(runs: Runs) -> list[Claim]:
    hinge, logistic = norms_of(runs[HINGE]), norms_of(runs[LOGISTIC])
    return [
        judge(
            "logistic-slower",
            "logistic is slower: steps until a tenth of the norm is left, over those of hinge (same seed)",
            STATEMENTS["neuron-logistic"],
            paper="slower",
            measured=decay_steps(logistic) / decay_steps(hinge),
            low=1.0,
        ),
        judge(
            "logistic-equilibrium",
            "logistic: equilibrium of the norm/(d·h), last quarter of the run",
            CONTROL,
            source="derived from Theorem 2's setting: √(1/(2dh))",
            paper=LOGISTIC_EQUILIBRIUM,
            measured=equilibria(logistic) / (DIMENSION * STEP_SIZE),
            low=0.9 * LOGISTIC_EQUILIBRIUM,
            high=1.1 * LOGISTIC_EQUILIBRIUM,
        ),
    ]


def _judge_scaling(runs: Runs) -> list[Claim]:
    """Judge the powers of h and d in the theorem's bounds (a), for the hinge loss, and (b), for the logistic loss."""
    in_h = f"h from {1 / STEP_SIZES[-1]:.0f}⁻¹ to {1 / STEP_SIZES[0]:.0f}⁻¹"
    in_d = f"d = {DIMENSION} and {WIDE}, same h"
    hinge, logistic = ({h: norms_of(runs[arm], h) for h in STEP_SIZES} for arm in (HINGE, LOGISTIC))
    over_d = {
        arm: exponents({DIMENSION: equilibria(norms_of(runs[arm])), WIDE: equilibria(norms_of(runs[wide]))})
        for arm, wide in ((HINGE, HINGE_WIDE), (LOGISTIC, LOGISTIC_WIDE))
    }
    return [
        judge(
            "hinge-steps-h",
            f"hinge: power of h in the steps until a tenth of the norm is left ({in_h})",
            STATEMENTS["neuron-hinge"],
            paper="T = O(‖V‖/(mh))",
            measured=exponents({h: decay_steps(norms) for h, norms in hinge.items()}),
            low=-1.1,
            high=-0.9,
        ),
        judge(
            "hinge-equilibrium-h",
            f"hinge: power of h in the equilibrium ({in_h})",
            STATEMENTS["neuron-hinge"],
            paper="O(dh)",
            measured=exponents({h: equilibria(norms) for h, norms in hinge.items()}),
            low=0.9,
            high=1.1,
        ),
        judge(
            "hinge-equilibrium-d",
            f"hinge: power of d in the equilibrium ({in_d})",
            STATEMENTS["neuron-hinge"],
            paper="O(dh)",
            measured=over_d[HINGE],
            low=0.9,
            high=1.1,
        ),
        judge(
            "logistic-steps-h",
            f"logistic: power of h in the steps until a tenth of the norm is left, at least −3/2 ({in_h})",
            STATEMENTS["neuron-logistic"],
            paper="T = O(‖V‖/(mdh^1.5))",
            measured=exponents({h: decay_steps(norms) for h, norms in logistic.items()}),
            low=-1.5,
        ),
        judge(
            "logistic-equilibrium-h",
            f"logistic: power of h in the equilibrium, 1/2 ({in_h})",
            STATEMENTS["neuron-logistic"],
            paper="O(d√h)",
            measured=exponents({h: equilibria(norms) for h, norms in logistic.items()}),
            low=0.45,
            high=0.55,
        ),
        judge(
            "logistic-equilibrium-d",
            f"logistic: power of d in the equilibrium, at most 1 ({in_d})",
            STATEMENTS["neuron-logistic"],
            paper="O(d√h)",
            measured=over_d[LOGISTIC],
            high=1.0,
        ),
    ]


def _judge_variants(runs: Runs) -> list[Claim]:
    bias, relu = norms_of(runs[BIAS]), norms_of(runs[RELU])
    ends = line_end(), line_end(slope=SLOPE / 2)
    return [
        judge(
            "bias-slope",
            f"with a bias: slope of the norm of (w, b), in h a step, at most −C/2 (steps 0 to {ends[0]:,.0f})",
            STATEMENTS["neuron-bias"],
            paper=-PROOF_CONSTANT / 2,
            measured=slopes(bias, ends[0]),
            high=-PROOF_CONSTANT / 2,
        ),
        judge(
            "bias-equilibrium",
            "with a bias: at the end the norm of (w, b)/(d·h) is at most 1/C (last quarter of the run)",
            STATEMENTS["neuron-bias"],
            paper=1 / PROOF_CONSTANT,
            measured=equilibria(bias) / (DIMENSION * STEP_SIZE),
            high=1 / PROOF_CONSTANT,
        ),
        judge(
            "relu-slope",
            f"ReLU neuron: its slope is half of that of the linear neuron, in h a step (steps 0 to {ends[1]:,.0f})",
            CONTROL,
            source="derived from Theorem 2's setting: −1/(2√(2π))",
            paper=SLOPE / 2,
            measured=slopes(relu, ends[1]),
            low=1.1 * SLOPE / 2,
            high=0.9 * SLOPE / 2,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(14, 4.2), layout="constrained")
    left, middle, right = picture.subplots(1, 3)
    for axis in (left, middle):
        for arm, color in COLORS.items():
            norms = norms_of(runs[arm])
            draw_band(axis, norms.steps / 1000, norms.values, color, arm, linewidth=1.8)
        axis.set(xlabel="SGD steps / 1000", ylabel="norm of the neuron")
        axis.set_xlim(0, norms.steps[-1] / 1000)
    _draw_line(left, norms_of(runs[HINGE]))
    left.set(title=f"Pure noise: the norm falls along a line (d = {DIMENSION}, h = 1/d²)")
    left.set_xlim(0, 3 * line_end() / LINE_SHARE / 1000)
    left.set_ylim(0, None)
    _draw_equilibria(middle)
    middle.set(title="… until noise and decay balance", yscale="log")
    _draw_scaling(right, runs)
    for axis in (left, middle, right):
        axis.legend(frameon=False, fontsize=8)
        plain(axis)
    return picture


def _draw_line(axis: Axes, norms: Curves) -> None:
    start = norms.values[:, 0].mean()
    end = start / (-SLOPE * STEP_SIZE)
    axis.plot(
        [0, end / 1000], [start, 0], color="black", linestyle="--", linewidth=1.2, label="slope $-h/\\sqrt{2\\pi}$"
    )


def _draw_equilibria(axis: Axes) -> None:
    for level, name, style in (
        (LOGISTIC_EQUILIBRIUM, "$\\sqrt{dh/2}$", ":"),
        (1.0, "$dh$ (the paper's order)", "-"),
        (HINGE_EQUILIBRIUM, "$\\sqrt{2\\pi}/4\\cdot dh$", "--"),
    ):
        color = GREY if style == "-" else "black"
        axis.axhline(
            level * DIMENSION * STEP_SIZE,
            color=color,
            linestyle=style,
            linewidth=1.2,
            label=name,
            zorder=0 if color == GREY else 3,
        )


def _draw_scaling(axis: Axes, runs: Runs) -> None:
    """Draw the equilibria over d·h with the derived curves; filled: d as in the paper, open: the larger d."""
    for arm, wide in ((HINGE, HINGE_WIDE), (LOGISTIC, LOGISTIC_WIDE)):
        sizes = np.array([DIMENSION * h for h in STEP_SIZES])
        found = np.stack([equilibria(norms_of(runs[arm], h)) for h in STEP_SIZES])
        axis.errorbar(sizes, found.mean(axis=1), found.std(axis=1), fmt="o", color=COLORS[arm], label=arm)
        other = equilibria(norms_of(runs[wide]))
        axis.plot(WIDE * STEP_SIZE, other.mean(), "s", color="white", markeredgecolor=COLORS[arm], label=wide)
    line = np.array([DIMENSION * STEP_SIZES[0], WIDE * STEP_SIZE])
    axis.plot(line, HINGE_EQUILIBRIUM * line, "--", color="black", linewidth=1.2, zorder=0)
    axis.plot(line, np.sqrt(line / 2), ":", color="black", linewidth=1.2, zorder=0)
    axis.set(xlabel="$dh$", ylabel="norm at the end", xscale="log", yscale="log", title="Equilibria over $d\\cdot h$")
    axis.set_xticks(sizes, labels=[f"{size:.3f}" for size in sizes])
    axis.set_xticks([], minor=True)


def _of_width(dimension: int) -> list[str]:
    return ["--model.net.widths", f"[{dimension}, 1]", "--data.dimension", str(dimension)]


_LOGISTIC = ("--model.loss", "LogisticLoss")
_SEVERAL_STEP_SIZES = ("--replicas.lr", json.dumps([round(h, 10) for h in STEP_SIZES]))
_RELU_INIT = [
    {"class_path": "lnsgd.models.Uniform", "init_args": {"bound": 1.7320508}},
    {"class_path": "lnsgd.models.AlternatingSigns"},
]

FIGURE = Figure(
    name="cornacchia-neuron",
    title="One neuron on pure noise: its norm falls along a line to an equilibrium (Cornacchia et al., Fig. 2)",
    config=CONFIG,
    scales={"ci": Scale(seeds=5, options=["--trainer.max_steps", "60000"]), "paper": Scale(seeds=20)},
    arms={
        HINGE: [*_SEVERAL_STEP_SIZES],
        LOGISTIC: [*_LOGISTIC, *_SEVERAL_STEP_SIZES],
        HINGE_WIDE: _of_width(WIDE),
        LOGISTIC_WIDE: [*_LOGISTIC, *_of_width(WIDE)],
        BIAS: ["--model.net.bias", "true"],
        RELU: [
            *("--model.net.widths", f"[{DIMENSION}, 1, 1]", "--model.net.train_layers", "[0]"),
            *("--model.net.init", json.dumps(_RELU_INIT)),
        ],
    },
    claims=_claims,
    draw=_draw,
)
