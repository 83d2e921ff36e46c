"""One neuron whose labels are pure noise withers: Cornacchia et al., Fig. 2 and Theorem 2.

The neuron relu(w·x) is wrong where it fires and the label is −1, on a quarter of all steps; the perceptron loss
then takes h·x from w. On x ~ N(0, I) a step changes ‖w‖² by −h‖w‖/√(2π) + h²d/4 in the mean: while the norm is
large it falls by h/(2√(2π)) a step, and it stays where both terms are equal, at √(2π)/4·d·h. The logistic loss
takes h·tanh(w·x/2)/2·x in the mean over labels: the same far from zero, less and less near it, until √(d·h/2).
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import Curves, measured
from lnsgd.figures.style import BLUE, GREY, ORANGE, draw_band, plain
from lnsgd.run_folder import RunFolder

# Those of the config.
DIMENSION = 30
STEP_SIZE = 1 / DIMENSION**2

HINGE, LOGISTIC = "hinge", "logistic"
COLORS = {HINGE: ORANGE, LOGISTIC: BLUE}

# In units of h and of d·h.
SLOPE = -1 / (2 * math.sqrt(2 * math.pi))
HINGE_EQUILIBRIUM = math.sqrt(2 * math.pi) / 4
LOGISTIC_EQUILIBRIUM = math.sqrt(1 / (2 * DIMENSION * STEP_SIZE))

# Where the slope is read: the line ends near step 25,000.
LINE_END = 10_000


def _norms(run: RunFolder) -> Curves:
    return measured(run, "norm", layer="net.layers.0.weight")


def slopes(norms: Curves) -> list[float]:
    """Least-squares slope of each seed's norm up to `LINE_END`, in units of h a step."""
    early = norms.steps <= LINE_END
    return [float(np.polyfit(norms.steps[early], of_seed[early], 1)[0]) / STEP_SIZE for of_seed in norms.values]


def linearity(norms: Curves) -> list[float]:
    """Squared correlation of each seed's norm with the step, up to twice `LINE_END`."""
    early = norms.steps <= 2 * LINE_END
    return [float(np.corrcoef(norms.steps[early], of_seed[early])[0, 1] ** 2) for of_seed in norms.values]


def equilibria(norms: Curves) -> list[float]:
    """Mean norm of each seed over the last quarter of the run, in units of d·h."""
    late = norms.steps > 0.75 * norms.steps[-1]
    return (norms.values[:, late].mean(axis=1) / (DIMENSION * STEP_SIZE)).tolist()


def withered_at(norms: Curves, share: float = 0.1) -> np.ndarray:
    """First measured step at which each seed's norm is below a share of its initial one; NaN where it never is."""
    below = norms.values < share * norms.values[:, :1]
    return np.where(below.any(axis=1), norms.steps[below.argmax(axis=1)], np.nan)


def _claims(runs: Runs) -> list[Claim]:
    hinge, logistic = _norms(runs[HINGE]), _norms(runs[LOGISTIC])
    return [
        judge(
            f"hinge: the norm falls along a line (R² of norm against step, steps 0 to {2 * LINE_END:,})",
            source="Cornacchia et al., Fig. 2",
            paper="linear",
            measured=linearity(hinge),
            low=0.98,
        ),
        judge(
            f"hinge: its slope, in h a step (steps 0 to {LINE_END:,})",
            source="Cornacchia et al., Theorem 2; derived: −1/(2√(2π))",
            paper=SLOPE,
            measured=slopes(hinge),
            low=1.1 * SLOPE,
            high=0.9 * SLOPE,
        ),
        judge(
            "hinge: in the end the norm is of order d·h (norm/(d·h), last quarter of the run)",
            source="Cornacchia et al., Theorem 2",
            paper="of order 1",
            measured=equilibria(hinge),
            low=1 / 3,
            high=3,
        ),
        judge(
            "hinge: equilibrium of the norm/(d·h), last quarter of the run",
            source="derived from Theorem 2's setting: √(2π)/4",
            paper=HINGE_EQUILIBRIUM,
            measured=equilibria(hinge),
            low=0.9 * HINGE_EQUILIBRIUM,
            high=1.1 * HINGE_EQUILIBRIUM,
        ),
        judge(
            "logistic is slower: steps until a tenth of the norm is left, over those of hinge (same seed)",
            source="Cornacchia et al., Fig. 2",
            paper="slower",
            measured=(withered_at(logistic) / withered_at(hinge)).tolist(),
            low=1.0,
        ),
        judge(
            "logistic: equilibrium of the norm/(d·h), last quarter of the run",
            source="derived from Theorem 2's setting: √(1/(2dh))",
            paper=LOGISTIC_EQUILIBRIUM,
            measured=equilibria(logistic),
            low=0.9 * LOGISTIC_EQUILIBRIUM,
            high=1.1 * LOGISTIC_EQUILIBRIUM,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 4.2), layout="constrained")
    left, right = picture.subplots(1, 2)
    for axis in (left, right):
        for arm, run in runs.items():
            norms = _norms(run)
            draw_band(axis, norms.steps / 1000, norms.values, COLORS[arm], f"{arm} loss", linewidth=1.8)
        axis.set(xlabel="SGD steps / 1000", ylabel="norm of the neuron ‖w‖")
        axis.set_xlim(0, norms.steps[-1] / 1000)
        plain(axis)
    _draw_line(left, _norms(runs[HINGE]))
    left.set(title=f"Pure noise: the norm falls along a line (d = {DIMENSION}, h = 1/d²)")
    left.set_ylim(0, None)
    _draw_equilibria(right)
    right.set(title="… until noise and decay balance", yscale="log")
    for axis in (left, right):
        axis.legend(frameon=False)
    return picture


def _draw_line(axis: Axes, norms: Curves) -> None:
    start = norms.values[:, 0].mean()
    end = start / (-SLOPE * STEP_SIZE)
    axis.plot(
        [0, end / 1000], [start, 0], color="black", linestyle="--", linewidth=1.2, label="slope $-h/(2\\sqrt{2\\pi})$"
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


FIGURE = Figure(
    name="cornacchia-neuron",
    title="One neuron on pure noise: its norm falls along a line to an equilibrium (Cornacchia et al., Fig. 2)",
    config="figures/cornacchia-neuron.yaml",
    scales={"ci": Scale(seeds=5), "paper": Scale(seeds=20)},
    arms={HINGE: [], LOGISTIC: ["--model.loss", "LogisticLoss"]},
    claims=_claims,
    draw=_draw,
)
