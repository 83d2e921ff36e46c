"""Label-noise descent compared with the gradient flow that it should follow: beyond the pictures of Gatmiry et al.

At zero loss full-batch descent on Σ_i (r(x_i) − y_i − z_i)² with noise z_i of variance σ² drifts along
dθ/ds = −P_T ∇R in the time s = η²σ²·steps, R = Σ_i ‖Dr(x_i)‖² half the trace of the Hessian
(`lnsgd.measures.closed_forms.projected_flow`). So runs at different η and σ lie on one curve over s. The flow starts
where descent without noise from the same weights ends. Small differences of neurons fall like exp(−κs) and the excess
of the trace like exp(−2κs), with κ in closed form (`lnsgd.measures.closed_forms.SumNetwork.rate`). Theorem 3 says that
the rate is at least 2λ_min(XXᵀ)·min φ′φ‴, here 12νλ_min.
"""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.data import SphereInputs
from lnsgd.figures.framework.claims import CONTROL, Claim, judge, slug
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import replicas, weights
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, PURPLE, plain
from lnsgd.figures.sharpness.manifold import geometry, judge_lemmas
from lnsgd.figures.sharpness.shared import (
    NO_NOISE,
    WEIGHT,
    WITHOUT_NOISE,
    instances,
    relative_singular_values,
    relative_trace,
)
from lnsgd.figures.sharpness.statements import STATEMENTS
from lnsgd.measures.closed_forms import SumNetwork, projected_flow

# η and σ of the arms; the last arm is the paper's.
ARMS = {
    "η = 0.01, σ = 0.4": (0.01, 0.4),
    "η = 0.02, σ = 0.2": (0.02, 0.2),
    "η = 0.05, σ = 0.2": (0.05, 0.2),
    "η = 0.05, σ = 0.03": (0.05, 0.03),
}
COLORS = dict(zip(ARMS, (GREEN, BLUE, ORANGE, PURPLE)))
RATE_ARMS = tuple(ARMS)[:3]  # at scale ci the last arm is too short

CONFIG = "figures/sharpness-flow.yaml"
NEURONS = read_setting(shipped_config(CONFIG), "model.net.widths")[1]
EXAMPLES = SphereInputs().examples

# Before this s the loss is still falling; below this σ₂/σ₁ a small error in s is a large error in σ₂/σ₁.
FIRST, SMALL = 0.1, 0.05

# Range of σ₂/σ₁ in which exponential rates are fitted, to σ₂/σ₁ itself and to the excess of the trace.
LINEAR = (1e-4, 1e-2)

SHOWN = 0  # the instance that is drawn
DRAWN_FROM = 1e-3  # in s


class Path(NamedTuple):
    """σ₂/σ₁ of the features and the trace over its minimum, along a path.

    Attributes:
        s: Times, (T,).
        ratio: σ₂/σ₁ of every instance, (R, T).
        trace: Trace over its minimum of every instance, (R, T).
    """

    s: np.ndarray
    ratio: np.ndarray
    trace: np.ndarray


def descent(runs: Runs, arm: str) -> Path:
    """Read the path of a run with label noise."""
    lr, std = ARMS[arm]
    ratio, trace = relative_singular_values(runs[arm], 2), relative_trace(runs[arm])
    return Path(ratio.steps * lr**2 * std**2, ratio.values, trace.values)


def problem(runs: Runs, lr: float = 0.0) -> SumNetwork:
    """Return the closed forms of the instances of the runs."""
    return instances(SphereInputs(), replicas(runs[NO_NOISE])["seed"].tolist(), _nu(runs), lr)


def _nu(runs: Runs) -> float:
    return float(read_setting(runs[NO_NOISE].config, "model.net.nu"))


def flow(runs: Runs, s: np.ndarray, lr: float = 0.0) -> Path:
    """Compute the flow at given times, with the drift at a finite step size ``lr`` if one is given."""
    return path_of(problem(runs, lr), s, flow_weights(runs, s, lr))


def flow_weights(runs: Runs, s: np.ndarray, lr: float = 0.0) -> torch.Tensor:
    """Compute the weights along the flow at given times, (T, R, m, d)."""
    start = torch.from_numpy(weights(runs[NO_NOISE], WEIGHT))
    return projected_flow(problem(runs, lr), start, s.tolist())


def path_of(network: SumNetwork, s: np.ndarray, found: torch.Tensor) -> Path:
    """Measure weights (T, R, m, d) on the manifold at times s."""
    features = found @ network.inputs.mT  # the pre-activations, as in the runs
    values = torch.linalg.svdvals(features)
    trace = torch.stack([2 * network.squared_gradients(one) for one in found]) / network.least_trace(NEURONS)
    return Path(s, (values[..., 1] / values[..., 0]).numpy().T, trace.numpy().T)


def deviations(found: np.ndarray, expected: np.ndarray, counted: np.ndarray) -> list[float]:
    """Return the mean of |found/expected − 1| of each instance over the times that count; all arrays are (R, T)."""
    apart = np.where(counted, np.abs(found / expected - 1), 0)
    return (apart.sum(axis=1) / counted.sum(axis=1)).tolist()


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else float("nan")


def rates(path: Path) -> np.ndarray:
    """Fit the rate of σ₂/σ₁ of each instance in the range `LINEAR`, (R,); NaN for fewer than two points."""
    inside = (path.ratio >= LINEAR[0]) & (path.ratio <= LINEAR[1])
    return np.array([-_slope(path.s[i], np.log(ratio[i])) for i, ratio in zip(inside, path.ratio)])


def _excess_rates(path: Path) -> np.ndarray:
    """Fit the rate of the excess of each instance's trace while σ₂/σ₁ is in the range `LINEAR`, (R,)."""
    inside = (path.ratio >= LINEAR[0]) & (path.ratio <= LINEAR[1])
    return np.array([-_slope(path.s[i], np.log(trace[i] - 1)) for i, trace in zip(inside, path.trace)])


def _after_first(path: Path) -> Path:
    keep = path.s >= FIRST
    return Path(path.s[keep], path.ratio[:, keep], path.trace[:, keep])


def _claims(runs: Runs) -> list[Claim]:
    network, times = problem(runs), _times_to_the_end(runs)
    ideal = flow_weights(runs, times)
    return [
        *(claim for arm in ARMS for claim in _judge_agreement(runs, arm)),
        _judge_finite_step(runs),
        *_judge_rates(runs, path_of(network, times, ideal)),
        *judge_lemmas(geometry(network, ideal)),
    ]


def _judge_agreement(runs: Runs, arm: str) -> list[Claim]:
    found = _after_first(descent(runs, arm))
    expected = flow(runs, found.s)
    large = expected.ratio >= SMALL
    span = f"s from {FIRST:g} to {found.s[-1]:.0f}"
    return [
        judge(
            f"{slug(arm)}-ratio",
            f"{arm}: σ₂/σ₁ of the features follows the flow (mean |ratio − 1|, {span}, where it is ≥ {SMALL:g})",
            STATEMENTS["flow"],
            paper="within a few per cent",
            measured=deviations(found.ratio, expected.ratio, large),
            high=0.05,
        ),
        judge(
            f"{slug(arm)}-trace",
            f"{arm}: trace of the Hessian follows the flow (mean |ratio − 1|, {span})",
            STATEMENTS["flow"],
            paper="within a few per cent",
            measured=deviations(found.trace, expected.trace, np.ones_like(large)),
            high=0.05,
        ),
    ]


def _judge_finite_step(runs: Runs) -> Claim:
    by_arm = []
    for arm, (lr, _) in ARMS.items():
        found = _after_first(descent(runs, arm))
        expected = flow(runs, found.s, lr)
        by_arm.append(deviations(found.ratio, expected.ratio, expected.ratio >= SMALL))
    return judge(
        "finite-step",
        "σ₂/σ₁ of the features follows the flow with the drift at finite η (mean |ratio − 1|, mean over the arms)",
        CONTROL,
        source="derived: covariance of the noise times 1/(1 − ηJJᵀ)",
        paper="within a few per cent",
        measured=np.mean(by_arm, axis=0),
        high=0.05,
    )


def _judge_rates(runs: Runs, ideal: Path) -> list[Claim]:
    network = problem(runs)
    kappa = network.rate(NEURONS).numpy()
    eigenvalue = torch.linalg.eigvalsh(network.inputs @ network.inputs.mT)[:, 0].numpy()
    measured = np.mean([rates(descent(runs, arm)) for arm in RATE_ARMS], axis=0)
    window = f"where σ₂/σ₁ is {LINEAR[1]:g} to {LINEAR[0]:g}"
    return [
        judge(
            "flow-rank-one",
            f"the flow becomes rank one exponentially: rate of σ₂/σ₁ over κ ({window})",
            STATEMENTS["flow-exponential"],
            paper=1.0,
            measured=rates(ideal) / kappa,
            low=0.95,
            high=1.05,
        ),
        judge(
            "flow-trace",
            f"the flow reaches the smallest trace exponentially: rate of its excess over 2κ ({window})",
            STATEMENTS["flow-exponential"],
            paper=1.0,
            measured=_excess_rates(ideal) / (2 * kappa),
            low=0.95,
            high=1.05,
        ),
        judge(
            "noise-rate",
            f"label noise: rate of σ₂/σ₁ over κ ({window}; mean over {', '.join(RATE_ARMS)})",
            CONTROL,
            source="derived: κ, the rate of the linearized flow",
            paper=1.0,
            measured=measured / kappa,
            low=0.9,
            high=1.1,
        ),
        judge(
            "theorem-rate",
            "label noise: at least as fast as the theorem's rate 2λ_min(XXᵀ)·min φ′φ‴ (fraction of instances)",
            STATEMENTS["flow-rate"],
            paper="at least",
            measured=measured >= 12 * _nu(runs) * eigenvalue,
            low=1.0,
            deterministic=True,
        ),
    ]


def _times_to_the_end(runs: Runs) -> np.ndarray:
    """Return times until σ₂/σ₁ of every instance is below the range `LINEAR`."""
    slowest = problem(runs).rate(NEURONS).min().item()
    return np.geomspace(DRAWN_FROM, 20 / slowest, 300)


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 7.4), layout="constrained")
    (over_steps, over_s), (ratios, rate) = picture.subplots(2, 2)
    ideal = flow(runs, _times_to_the_end(runs))
    for arm, color in COLORS.items():
        lr, std = ARMS[arm]
        path = descent(runs, arm)
        line = {"color": color, "linewidth": 1.3, "label": arm}
        over_steps.plot(path.s[1:] / (lr * std) ** 2, path.trace[SHOWN, 1:], **line)
        over_s.plot(path.s[1:], path.trace[SHOWN, 1:], **line)
        ratios.plot(path.s[1:], path.ratio[SHOWN, 1:], **line)
    for axis, values in ((over_s, ideal.trace), (ratios, ideal.ratio)):
        axis.plot(ideal.s, values[SHOWN], color="black", linestyle="--", linewidth=1.6, label="flow on the manifold")
        axis.set(xlabel="s = η²σ²·steps")
    kappa = problem(runs).rate(NEURONS).numpy()
    _draw_slope(ratios, ideal, kappa[SHOWN])
    over_steps.set(xlabel="steps", xscale="log", ylabel="trace of the Hessian / minimum")
    over_s.set(xscale="log", xlim=(DRAWN_FROM, None), ylabel="trace of the Hessian / minimum")
    end = 4 * np.log(10) / kappa[SHOWN]
    ratios.set(ylabel="σ₂/σ₁ of the features", yscale="log", ylim=(1e-4, 1.5), xlim=(0, 1.1 * end))
    over_steps.set_title(f"(a) one instance (seed {SHOWN}), over steps", fontsize=10)
    over_s.set_title("(b) the same over s = η²σ²·steps: one curve", fontsize=10)
    ratios.set_title("(c) the features become rank one, exponentially", fontsize=10)
    _draw_rates(rate, runs, ideal, kappa)
    for axis in (over_steps, over_s, ratios, rate):
        axis.legend(frameon=False, fontsize=9)
        plain(axis)
    return picture


def _draw_slope(axis: Axes, ideal: Path, kappa: float) -> None:
    """Draw a line of slope −κ near the flow at small σ₂/σ₁."""
    at = int(np.argmax(ideal.ratio[SHOWN] < LINEAR[1]))
    height = 3 * ideal.ratio[SHOWN, at] * np.exp(-kappa * (ideal.s - ideal.s[at]))
    axis.plot(
        ideal.s, height, color=GREY, linestyle=":", linewidth=1.4, label=f"slope −κ, in closed form: κ = {kappa:.2f}"
    )


def _draw_rates(axis: Axes, runs: Runs, ideal: Path, kappa: np.ndarray) -> None:
    axis.plot(kappa, rates(ideal), "kx", markersize=6, label="flow on the manifold", zorder=3)
    for arm in RATE_ARMS:
        axis.plot(kappa, rates(descent(runs, arm)), "o", color=COLORS[arm], markersize=5, alpha=0.8, label=arm)
    end = np.array([0, 1.1 * kappa.max()])
    axis.plot(end, end, color=GREY, linestyle=":", linewidth=1.4)
    axis.set(xlabel="κ, in closed form", ylabel="measured rate of σ₂/σ₁", xlim=(0, None), ylim=(0, None))
    axis.set_title(f"(d) its rate, {len(kappa)} instances", fontsize=10)


def _arm(lr: float, std: float, until: float) -> list[str]:
    """Return the options of a run with label noise up to a given s."""
    steps = round(until / (lr * std) ** 2)
    return [
        *("--model.optimizer.lr", f"{lr * EXAMPLES:g}"),
        *("--model.label_noise.std", f"{std:g}", "--trainer.max_steps", f"{steps}"),
    ]


_LAST = tuple(ARMS)[-1]

FIGURE = Figure(
    name="sharpness-flow",
    title="Label-noise descent follows the gradient flow of the trace of the Hessian at zero loss",
    config=CONFIG,
    scales={
        "ci": Scale(seeds=5, arms={_LAST: _arm(*ARMS[_LAST], until=5)}),
        "paper": Scale(seeds=10, arms={arm: _arm(*pair, until=60) for arm, pair in ARMS.items()}),
    },
    arms={
        NO_NOISE: [*WITHOUT_NOISE, "--model.optimizer.lr", f"{0.01 * EXAMPLES:g}", "--trainer.max_steps", "100000"],
        **{arm: _arm(*pair, until=32) for arm, pair in ARMS.items()},
    },
    claims=_claims,
    draw=_draw,
)
