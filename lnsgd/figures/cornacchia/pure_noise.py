"""A network whose labels are pure noise: Cornacchia et al., Fig. 3 (without biases) and Fig. 4 (with biases)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge, slug
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import Curves, measured, weights
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, PURPLE, draw_band, plain, seeds_title
from lnsgd.runs.folder import RunFolder

CONFIG = "figures/cornacchia-pure-noise.yaml"
FRESH_INPUTS = read_setting(shipped_config(CONFIG), "data.test_size")

HINGE, LOGISTIC = "hinge", "logistic"
LOSSES = (HINGE, LOGISTIC)
WITHOUT, WITH, ZERO, FIXED = "without biases", "with biases", "biases from zero", "fixed output layer"


def _arm(loss: str, biases: str) -> str:
    return f"{loss}, {biases}"


COLORS = {
    _arm(HINGE, WITHOUT): ORANGE,
    _arm(LOGISTIC, WITHOUT): BLUE,
    _arm(HINGE, WITH): ORANGE,
    _arm(LOGISTIC, WITH): BLUE,
    _arm(LOGISTIC, ZERO): GREEN,
    _arm(LOGISTIC, FIXED): PURPLE,
}

# Weights count as decayed to zero if at most this part of their initial norm remains. Otherwise they do not decay to
# zero if their norm has become stable as well: if the last doubling of the number of steps leaves this part of it.
ZERO_PART, STABLE_PART = 0.1, 0.95

# Neurons fire for almost no input if at most this fraction of them is active on fresh inputs.
ALMOST_NONE = 0.05

# A bias falls monotonically if it never rises by more than this part of its whole fall, because SGD is random.
LARGEST_RISE = 0.05

# Why the figure has arms that the paper does not state.
CONTROLS = {
    _arm(HINGE, WITH): "§ 5 and 6.2 of the paper show biases with the cross-entropy loss only",
    _arm(LOGISTIC, ZERO): "the paper does not state how biases begin",
    _arm(LOGISTIC, FIXED): "the paper fixes the output layer in its theorems on pure noise",
}

HIDDEN_BIAS = "layers.0.bias"
# Why claims fail. The run to 10⁸ steps had the seed 0 and otherwise the same settings.
WHY_NOT_STABLE = (
    "The norm falls ever more slowly as neurons fall silent, but it has not stopped: in a run of one seed to 10⁸ steps "
    "the last doubling still took 17 % of it."
)
WHY_SLOW_DRIFT = (
    "Biases fall more slowly if the output layer is fixed; in a run of one seed their mean had fallen by 1 after "
    "3.4 · 10⁷ steps."
)
WHY_NOT_DEAD = (
    "A neuron with bias b and weights w fires with probability Φ(b/‖w‖), which is still between 3 and 7 % for each of "
    "them; even after 10⁸ steps, with 1.5 % active in a run of one seed, every neuron fires for some of the inputs."
)

_HINGE_OPTIONS = ["--model.loss", "HingeLoss", "--model.loss.beta", "0"]
_NO_BIASES = ["--model.net.bias", "false"]


def _hidden(run: RunFolder) -> Curves:
    return measured(run, "norm", layer="net.layers.0.weight")


def _output(run: RunFolder) -> Curves:
    return measured(run, "norm", layer="net.layers.1.weight")


def _mean_bias(run: RunFolder) -> Curves:
    return measured(run, "bias_mean", layer=f"net.{HIDDEN_BIAS}")


def _hidden_bias(run: RunFolder) -> Curves:
    return measured(run, "norm", layer=f"net.{HIDDEN_BIAS}")


def _active(run: RunFolder) -> Curves:
    return measured(run, "active_fraction", "val")


def _dead(run: RunFolder) -> Curves:
    return measured(run, "dead_fraction", "val")


def remaining(curves: Curves) -> np.ndarray:
    """Return the last value of each seed as a fraction of its initial value, (R,)."""
    return curves.last / curves.values[:, 0]


def stable_part(steps: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Return what the last doubling of the number of steps leaves of a norm, (R,).

    Args:
        steps: Steps of the measurements, (T,). Between two of them the norm is read off the line that joins them over
            a logarithmic axis.
        norms: (R, T).
    """
    later, logarithm = steps > 0, np.log(steps[-1] / 2)
    half = [np.interp(logarithm, np.log(steps[later]), norm) for norm in norms[:, later]]
    return norms[:, -1] / np.array(half)


def steps_until(norms: Curves, part: float) -> np.ndarray:
    """Return the first measured step where at most a part of the initial norm remains, (R,); NaN if there is none."""
    below = norms.values <= part * norms.values[:, :1]
    return np.where(below.any(1), norms.steps[below.argmax(1)], np.nan)


def largest_rise(curves: Curves) -> np.ndarray:
    """Return how far each curve ever rises above an earlier value, as a part of its whole fall, (R,).

    The part is infinite for a curve that does not fall.
    """
    rises = (curves.values - np.minimum.accumulate(curves.values, 1)).max(1)
    falls = curves.values[:, 0] - curves.last
    return np.where(falls > 0, rises / np.where(falls > 0, falls, 1), np.inf)


def _claims(runs: Runs) -> list[Claim]:
    claims = [claim for loss in LOSSES for claim in _judge_without_biases(runs[_arm(loss, WITHOUT)], loss)]
    claims.append(_judge_time_to_nullify(runs))
    with_biases = runs[_arm(LOGISTIC, WITH)]
    claims += [*_judge_norms(with_biases), *_judge_biases(with_biases), *_judge_death(with_biases)]
    for arm in CONTROLS:
        claims += _judge_control(arm, runs[arm])
    return claims


def _last(run: RunFolder) -> str:
    return f"at step {_hidden(run).steps[-1]:,}"


def _judge_without_biases(run: RunFolder, loss: str) -> list[Claim]:
    return [
        judge(
            f"{loss}-decays",
            f"{loss}, without biases the weights decay to zero (norm {_last(run)} over the initial one, of the layer "
            "where more remains)",
            STATEMENTS["weights-decay"],
            paper="to zero",
            measured=np.maximum(remaining(_hidden(run)), remaining(_output(run))),
            high=ZERO_PART,
        ),
        judge(
            f"{loss}-no-death",
            f"{loss}, without biases every neuron fires for some input (neurons that fire on none of "
            f"{FRESH_INPUTS:,} fresh inputs, fraction {_last(run)})",
            STATEMENTS["no-death-without-bias"],
            paper=0.0,
            measured=_dead(run).last,
            high=0.0,
            deterministic=True,
        ),
    ]


def _judge_time_to_nullify(runs: Runs) -> Claim:
    """Judge that the logistic loss takes longer.

    The ratio is NaN if weights do not decay with the hinge loss. With the logistic loss, weights that do not decay
    count with the last step, which is a lower bound.
    """
    logistic = _hidden(runs[_arm(LOGISTIC, WITHOUT)])
    steps = steps_until(logistic, ZERO_PART)
    slow = np.where(np.isnan(steps), logistic.steps[-1], steps)
    return judge(
        "hinge-faster",
        f"logistic takes longer than hinge, without biases (steps until {ZERO_PART:.0%} of the hidden norm remain, "
        "ratio by seed)",
        STATEMENTS["hinge-faster"],
        paper="longer",
        measured=slow / steps_until(_hidden(runs[_arm(HINGE, WITHOUT)]), ZERO_PART),
        low=1.0,
    )


def _judge_norms(run: RunFolder) -> list[Claim]:
    hidden, bias = _hidden(run), _hidden_bias(run)
    together = np.sqrt(hidden.values**2 + bias.values**2)
    early = hidden.steps[-1] // 100
    return [
        judge(
            "logistic-biases-no-decay",
            f"logistic, with biases the weights do not decay to zero (hidden norm {_last(run)} over the initial one)",
            STATEMENTS["biases-no-decay"],
            paper="no decay",
            measured=remaining(hidden),
            low=ZERO_PART,
        ),
        judge(
            "logistic-biases-stable",
            f"logistic, with biases the hidden norm becomes stable (what the last doubling of the steps leaves, "
            f"{_last(run)})",
            STATEMENTS["biases-no-decay"],
            paper="no decay",
            measured=stable_part(hidden.steps, hidden.values),
            low=STABLE_PART,
            why=WHY_NOT_STABLE,
        ),
        judge(
            "logistic-biases-stable-together",
            "logistic, with biases the norm of hidden weights and biases together becomes stable (what the last "
            f"doubling of the steps leaves, {_last(run)})",
            CONTROL,
            source="derived: neurons that fall silent keep weights and biases",
            measured=stable_part(hidden.steps, together),
            low=STABLE_PART,
        ),
        judge(
            "logistic-biases-falls-early",
            f"logistic, with biases the hidden norm falls at first (at step {early:,} over the initial one)",
            STATEMENTS["hidden-norm-falls"],
            paper="decreases",
            measured=hidden.at(early) / hidden.values[:, 0],
            high=1.0,
        ),
        judge(
            "logistic-biases-weight-decay",
            f"logistic, with biases the norm of each layer's weights is smaller {_last(run)} than at first (ratio, "
            "of the layer where more remains)",
            STATEMENTS["norm-step-biases"],
            paper="decay",
            measured=np.maximum(remaining(hidden), remaining(_output(run))),
            high=1.0,
        ),
    ]


def _judge_biases(run: RunFolder) -> list[Claim]:
    bias = _mean_bias(run)
    change = weights(run, HIDDEN_BIAS) - weights(run, HIDDEN_BIAS, initial=True)
    return [
        judge(
            "logistic-bias-drift",
            f"logistic, the mean bias of hidden neurons drifts down by at least the initial standard deviation, 1 "
            f"(change until the end, {_last(run)})",
            STATEMENTS["bias-drift"],
            paper="down",
            measured=bias.last - bias.values[:, 0],
            high=-1.0,
        ),
        judge(
            "logistic-bias-monotone",
            "logistic, the mean bias of hidden neurons falls monotonically (largest rise above an earlier value, as "
            "a part of the whole fall)",
            STATEMENTS["bias-monotone"],
            paper="falls",
            measured=largest_rise(bias),
            high=LARGEST_RISE,
        ),
        judge(
            "logistic-bias-of-each",
            f"logistic, the bias of each hidden neuron is smaller {_last(run)} than at first (fraction of neurons)",
            STATEMENTS["bias-monotone"],
            paper=1.0,
            measured=(change < 0).mean(1),
            low=1 - LARGEST_RISE,
        ),
    ]


def _judge_death(run: RunFolder) -> list[Claim]:
    return [
        judge(
            "logistic-silent",
            f"logistic, with biases neurons stop firing (active fraction on fresh inputs {_last(run)})",
            STATEMENTS["relu-death"],
            paper="almost none",
            measured=_active(run).last,
            high=ALMOST_NONE,
        ),
        judge(
            "logistic-dead",
            f"logistic, with biases neurons do not fire at all (fraction that fires on none of {FRESH_INPUTS:,} fresh "
            f"inputs, {_last(run)})",
            STATEMENTS["relu-death-all"],
            paper="all",
            measured=_dead(run).last,
            low=1 - ALMOST_NONE,
            why=WHY_NOT_DEAD,
        ),
    ]


def _judge_control(arm: str, run: RunFolder) -> list[Claim]:
    """Judge that neurons die instead of weights under another loss or another reading of what the paper leaves open."""
    id, bias = slug(arm), _mean_bias(run)
    source = CONTROLS[arm]
    return [
        judge(
            f"{id}-no-decay",
            f"{arm}: the weights do not decay to zero (hidden norm {_last(run)} over the initial one)",
            CONTROL,
            source=source,
            measured=remaining(_hidden(run)),
            low=ZERO_PART,
        ),
        judge(
            f"{id}-drift",
            f"{arm}: the mean bias of hidden neurons drifts down (change until the end, {_last(run)})",
            CONTROL,
            source=source,
            measured=bias.last - bias.values[:, 0],
            high=-1.0,
            why=WHY_SLOW_DRIFT if arm == _arm(LOGISTIC, FIXED) else "",
        ),
        judge(
            f"{id}-silent",
            f"{arm}: fewer neurons fire than at first (ratio of active fractions on fresh inputs, {_last(run)})",
            CONTROL,
            source=source,
            measured=remaining(_active(run)),
            high=1.0,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11.5, 7.5), layout="constrained")
    (without, with_biases), (bias, active) = picture.subplots(2, 2)
    for arm, run in runs.items():
        shown = with_biases if _has_biases(arm) else without
        _draw_arm(shown, _hidden(run), arm)
        _draw_arm(active, _active(run), arm, linestyle="-" if _has_biases(arm) else ":")
        if _has_biases(arm):
            _draw_arm(bias, _mean_bias(run), arm)
    without.set(title="Without biases: hidden weights", ylabel="Frobenius norm", ylim=(0, None))
    with_biases.set(title="With biases: hidden weights", ylabel="Frobenius norm", ylim=(0, None))
    bias.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    bias.set(title="With biases: biases of hidden neurons", ylabel="mean bias")
    active.axhline(ALMOST_NONE, color=GREY, linewidth=0.8, zorder=0)
    active.set(title="Active neurons", ylabel="active fraction on fresh inputs", ylim=(0, 0.6))
    for axis in (without, with_biases, bias, active):
        axis.set(xlabel="SGD steps (batches of one)", xscale="log", xlim=(10, None))
        plain(axis)
    seeds = len(_hidden(runs[_arm(LOGISTIC, WITH)]).values)
    for axis in (without, with_biases):
        axis.legend(frameon=False, title=seeds_title(seeds), loc="lower left", fontsize=9, title_fontsize=9)
    bias.legend(frameon=False, loc="lower left", fontsize=9)
    active.legend(frameon=False, loc="lower left", fontsize=9)
    return picture


def _has_biases(arm: str) -> bool:
    return WITHOUT not in arm


def _draw_arm(axis: Axes, curves: Curves, arm: str, linestyle: str = "-") -> None:
    later = curves.steps > 0
    steps, values = curves.steps[later], curves.values[:, later]
    draw_band(axis, steps, values, COLORS[arm], arm, linewidth=1.8, linestyle=linestyle)


_AT_PAPER_SCALE = {
    # Weights without biases have decayed by then; controls show where they are heading.
    _arm(LOGISTIC, WITHOUT): 32_000_000,
    _arm(HINGE, WITHOUT): 20_000_000,
    _arm(HINGE, WITH): 5_000_000,
    _arm(LOGISTIC, ZERO): 5_000_000,
    _arm(LOGISTIC, FIXED): 5_000_000,
}

FIGURE = Figure(
    name="cornacchia-pure-noise",
    title="A network on pure noise: its weights decay, or its neurons fall silent (Cornacchia et al., Fig. 3 and 4)",
    config=CONFIG,
    scales={
        # With h = 1/d instead of 1/d² the networks need about a hundredth of the steps.
        "ci": Scale(seeds=3, options=["--model.optimizer.lr", "0.033333333", "--trainer.max_steps", "90000"]),
        "paper": Scale(
            seeds=10, arms={arm: ["--trainer.max_steps", str(steps)] for arm, steps in _AT_PAPER_SCALE.items()}
        ),
    },
    arms={
        _arm(LOGISTIC, WITH): [],
        _arm(LOGISTIC, WITHOUT): _NO_BIASES,
        _arm(HINGE, WITHOUT): [*_HINGE_OPTIONS, *_NO_BIASES],
        _arm(HINGE, WITH): _HINGE_OPTIONS,
        _arm(LOGISTIC, ZERO): ["--model.net.init.biases", "false"],
        _arm(LOGISTIC, FIXED): ["--model.net.train_layers", "[0]"],
    },
    claims=_claims,
    draw=_draw,
)
