"""A network whose labels are pure noise: Cornacchia et al., Fig. 3 (without biases) and Fig. 4 (with biases)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import Curves, measured
from lnsgd.figures.style import BLUE, GREY, ORANGE, draw_band, plain
from lnsgd.run_folder import RunFolder

NEURONS = 120

HINGE, LOGISTIC = "hinge", "logistic"
LOSSES = (HINGE, LOGISTIC)
COLORS = {HINGE: ORANGE, LOGISTIC: BLUE}
WITHOUT, WITH = "without biases", "with biases"

_HINGE_OPTIONS = ["--model.loss", "HingeLoss", "--model.loss.beta", "0"]
_NO_BIASES = ["--model.net.bias", "false"]


def _arm(loss: str, biases: str) -> str:
    return f"{loss}, {biases}"


def _hidden(run: RunFolder) -> Curves:
    return measured(run, "norm", layer="net.layers.0.weight")


def _output(run: RunFolder) -> Curves:
    return measured(run, "norm", layer="net.layers.1.weight")


def _mean_bias(run: RunFolder) -> Curves:
    return measured(run, "bias_mean", layer="net.layers.0.bias")


def _active(run: RunFolder) -> Curves:
    return measured(run, "active_fraction", "val")


def _dead(run: RunFolder) -> Curves:
    return measured(run, "dead_fraction", "val")


def remaining(norms: Curves) -> np.ndarray:
    """What is left of each seed's initial norm in the end, as a fraction."""
    return norms.last / norms.values[:, 0]


def _claims(runs: Runs) -> list[Claim]:
    last = f"at step {_hidden(runs[_arm(HINGE, WITHOUT)]).steps[-1]:,}"
    hidden = {arm: _hidden(run) for arm, run in runs.items()}
    claims = _without_biases(hidden, last)
    for loss in LOSSES:
        claims += _with_biases(runs[_arm(loss, WITH)], hidden[_arm(loss, WITHOUT)], loss, last)
    return claims


def _without_biases(hidden: dict[str, Curves], last: str) -> list[Claim]:
    source = "Cornacchia et al., Fig. 3"
    decay = [
        judge(
            f"{loss}, without biases the weights decay (hidden norm {last} over the initial one)",
            source=source,
            paper="decay",
            measured=remaining(hidden[_arm(loss, WITHOUT)]).tolist(),
            high=0.5,
        )
        for loss in LOSSES
    ]
    faster = judge(
        f"hinge faster than logistic, without biases (ratio of hidden norms {last}, same seed)",
        source=source,
        paper="faster",
        measured=(hidden[_arm(HINGE, WITHOUT)].last / hidden[_arm(LOGISTIC, WITHOUT)].last).tolist(),
        high=1.0,
    )
    return [*decay, faster]


def _with_biases(run: RunFolder, without: Curves, loss: str, last: str) -> list[Claim]:
    source = "Cornacchia et al., Fig. 4"
    bias = _mean_bias(run)
    return [
        judge(
            f"{loss}, with biases the weights do not decay (hidden norm {last} over the initial one)",
            source=source,
            paper="no decay",
            measured=remaining(_hidden(run)).tolist(),
            low=0.5,
        ),
        judge(
            f"{loss}, with biases they are larger than without (ratio of hidden norms {last}, same seed)",
            source="Cornacchia et al., Fig. 3 and 4",
            paper="larger",
            measured=(_hidden(run).last / without.last).tolist(),
            low=1.0,
        ),
        judge(
            f"{loss}, the mean bias of hidden neurons drifts down (change until the end, {last})",
            source=source,
            paper="down",
            measured=(bias.last - bias.values[:, 0]).tolist(),
            high=0.0,
        ),
        judge(
            f"{loss}, with biases neurons fall silent (active fraction on fresh inputs {last}; ½ without biases)",
            source=source,
            paper="they die",
            measured=_active(run).last.tolist(),
            high=0.4,
        ),
        judge(
            f"{loss}, with biases neurons die altogether (fraction that fires on none of 2,000 fresh inputs, {last})",
            source=source,
            paper="they die",
            measured=_dead(run).last.tolist(),
            low=1 / NEURONS,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 7), layout="constrained")
    steps = _hidden(runs[_arm(LOGISTIC, WITH)]).steps[-1]
    (left, right), (bias, active) = picture.subplots(2, 2)
    for axis, biases in ((left, WITHOUT), (right, WITH)):
        _draw_norms(axis, runs, biases)
    for loss in LOSSES:
        _band(bias, _mean_bias(runs[_arm(loss, WITH)]), loss, f"{loss} loss")
        _band(active, _active(runs[_arm(loss, WITH)]), loss, f"{loss} loss, {WITH}")
        _band(active, _active(runs[_arm(loss, WITHOUT)]), loss, f"{loss} loss, {WITHOUT}", linestyle=":")
    bias.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    bias.set(title="With biases: hidden neurons' biases", ylabel="mean bias")
    active.set(title="Firing neurons", ylabel="active fraction on fresh inputs", ylim=(0, 0.6))
    for axis in (left, right, bias, active):
        axis.set(xlabel="SGD steps")
        axis.set_xlim(0, steps)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
        axis.legend(frameon=False)
        plain(axis)
    return picture


def _draw_norms(axis: Axes, runs: Runs, biases: str) -> None:
    for loss in LOSSES:
        run = runs[_arm(loss, biases)]
        _band(axis, _hidden(run), loss, f"{loss} loss, hidden layer")
        _band(axis, _output(run), loss, f"{loss} loss, output layer", linestyle="--")
    axis.set(title=f"{biases.capitalize()}: weights", ylabel="Frobenius norm of a layer", ylim=(0, 65))


def _band(axis: Axes, curves: Curves, loss: str, label: str, **line: str) -> None:
    draw_band(axis, curves.steps, curves.values, COLORS[loss], label, linewidth=1.8, **line)


FIGURE = Figure(
    name="cornacchia-pure-noise",
    title="A network on pure noise: its weights decay, or its neurons fall silent (Cornacchia et al., Fig. 3 and 4)",
    config="figures/cornacchia-pure-noise.yaml",
    scales={
        # With h = 1/d in place of 1/d² the same happens in about a hundredth of the steps.
        "ci": Scale(seeds=3, options=["--model.optimizer.lr", "0.033333333", "--trainer.max_steps", "90000"]),
        "paper": Scale(seeds=5),
    },
    arms={
        _arm(HINGE, WITHOUT): [*_HINGE_OPTIONS, *_NO_BIASES],
        _arm(LOGISTIC, WITHOUT): _NO_BIASES,
        _arm(HINGE, WITH): _HINGE_OPTIONS,
        _arm(LOGISTIC, WITH): [],
    },
    claims=_claims,
    draw=_draw,
)
