"""Label noise makes a network on the hypercube problem sparser and better: Cornacchia et al., Fig. 1."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from lnsgd.figures.cornacchia.hypercube_explicit import judge_explicit
from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale, Variant
from lnsgd.figures.framework.results import Curves, measured
from lnsgd.figures.framework.statements import Statement
from lnsgd.figures.framework.style import BLUE, GREY, ORANGE, draw_band, mark_paper, plain, seeds_title
from lnsgd.runs.folder import RunFolder

CLEAN, NOISY = "p = 0", "p = 0.2"
COLORS = {CLEAN: BLUE, NOISY: ORANGE}
# What stands for an arm in the ids of claims, and what the paper states of it.
IDS = {CLEAN: "clean", NOISY: "noisy"}
OF_ERROR = {CLEAN: STATEMENTS["hypercube-error"], NOISY: STATEMENTS["hypercube-error-noise"]}
OF_ACTIVE = {CLEAN: STATEMENTS["hypercube-active"], NOISY: STATEMENTS["hypercube-active-noise"]}

CONFIG = "figures/cornacchia-hypercube.yaml"
UNITS = read_setting(shipped_config(CONFIG), "model.net.widths")[1]

# The paper's numbers: test error in percent, and typical number of active neurons on the training set.
PAPER_ERROR = {CLEAN: 49.0, NOISY: 21.0}
PAPER_ACTIVE = {CLEAN: 94.0, NOISY: 47.0}

# Numbers within these distances of the paper's count as reproduced: points of error, and relative for neurons.
POINTS, RELATIVE = 5, 0.2

# Numbers of active neurons on two sets are the same within this relative distance.
SAME = 0.1

# Why claims fail, from the readings of the open settings (variants.json).
_CLEAN_ERROR = (
    "49 % is reached only if no layer has biases (50 %), and then noise does not lower the error; it is 40 % with "
    "biases that start at zero, and 30 to 35 % under the other readings."
)
_CLEAN_ACTIVE = "Without noise, half of the neurons are active under every reading (117 to 120), as they are at first."
_NOISY_ACTIVE = (
    "The number falls as long as training goes on: it is 49 after 1.6 · 10⁵ steps, when the test error is 22 % but no "
    "network fits yet, and 17 after 10⁶ steps."
)
WHY = {
    **{f"clean-error-{when}": _CLEAN_ERROR for when in ("stable", "fit")},
    **{f"clean-active-{when}": _CLEAN_ACTIVE for when in ("stable", "fit")},
    **{f"noisy-active-{when}": _NOISY_ACTIVE for when in ("stable", "fit")},
    "noisy-active-on-test": "Noise silences neurons first on the points that it trains on: the ratio is 1.02 after "
    "5 · 10⁴ steps, 1.11 after 2 · 10⁵ and 1.55 after 10⁶.",
}

# The test error is stable where the last doubling of the number of steps changes it by at most so many points.
STABLE = 1.0

# A network that guesses is wrong on 50 %. "Not a lot better" is taken as at least this error, in percent.
NOT_A_LOT_BETTER = 40.0

# All networks fit if the fraction that does is, with 95 % confidence, at least this.
ALMOST_ALL = 0.8

TEST_SIZE = read_setting(shipped_config(CONFIG), "data.test_size")
DIMENSION = read_setting(shipped_config(CONFIG), "model.net.widths")[0]
EPSILON = read_setting(shipped_config(CONFIG), "data.epsilon")


def first_fit(train_error: Curves) -> np.ndarray:
    """Return the index of the first measurement without training errors, (R,); −1 where there is none."""
    fits = train_error.values == 0
    return np.where(fits.any(1), fits.argmax(1), -1)


def first_stable(train_error: Curves, test_error: Curves) -> np.ndarray:
    """Return the index of the measurement at which the paper's stopping rule ends training, (R,); −1 if it does not.

    The rule is to train until the training error is zero and then until the test error is stable. It is stable at a
    step t if it changes by at most `STABLE` points from step t/2 to step t, and if the network fits by step t/2.

    Args:
        train_error: Fractions; ten or more measurements per decade.
        test_error: In percent, at the same steps.
    """
    steps = train_error.steps
    # The last measurement up to t/2; a little more, because steps are rounded and 10^0.3 is less than 2.
    half = np.searchsorted(steps, 0.51 * steps, side="right") - 1
    changes = np.abs(test_error.values - test_error.values[:, half])
    fit = first_fit(train_error)
    stable = (changes <= STABLE) & (half >= fit[:, None]) & (fit[:, None] >= 0) & (half < np.arange(len(steps)))
    return np.where(stable.any(1), stable.argmax(1), -1)


def _first_fit(run: RunFolder) -> np.ndarray:
    return first_fit(measured(run, "error", "train"))


def _first_stable(run: RunFolder) -> np.ndarray:
    return first_stable(measured(run, "error", "train"), _test_error(run))


def _steps(run: RunFolder, indices: np.ndarray) -> np.ndarray:
    """Return the steps of measurements, (R,); the last step for index −1."""
    return measured(run, "error", "train").steps[indices]


def _values(curves: Curves, indices: np.ndarray) -> np.ndarray:
    """Return the value of each replica at its own measurement, (R,)."""
    return curves.values[np.arange(len(curves.values)), indices]


def _test_error(run: RunFolder) -> Curves:
    curves = measured(run, "error", "test")
    return curves._replace(values=100 * curves.values)


def _active(run: RunFolder, split: str = "train") -> Curves:
    return measured(run, "active_count", split)


def _claims(runs: Runs) -> list[Claim]:
    stable = {arm: _first_stable(run) for arm, run in runs.items()}
    fit = {arm: _first_fit(run) for arm, run in runs.items()}
    seeds = range(len(stable[CLEAN]))
    return [
        *_judge_stop(runs, stable, "stable"),
        *_judge_stop(runs, fit, "fit"),
        *_judge_fits(fit),
        *_judge_stops(runs, stable),
        _judge_vanilla(_values(_test_error(runs[CLEAN]), stable[CLEAN])),
        _judge_time_to_fit(runs, fit),
        *_judge_on_test(runs, stable),
        *judge_explicit(seeds, DIMENSION, EPSILON, TEST_SIZE, RELATIVE),
    ]


# When networks are read: the paper's own rule, and another one beside it.
_WHERE = {
    "stable": "once the train error is zero and the test error stable, or at the last step",
    "fit": "where each seed's train error is first zero",
}


def _judge_stop(runs: Runs, stops: Mapping[str, np.ndarray], when: str) -> list[Claim]:
    errors = {arm: _values(_test_error(run), stops[arm]) for arm, run in runs.items()}
    active = {arm: _values(_active(run), stops[arm]) for arm, run in runs.items()}
    return [*_judge_numbers(errors, active, when), *_judge_effects(errors, active, when)]


def _judge_at(when: str, id: str, claim: str, of: Statement, paper: float, **judged: Any) -> Claim:
    """Judge a statement of the paper where its own rule stops training, and elsewhere a control."""
    text = f"{claim}, {_WHERE[when]}"
    if when == "stable":
        return judge(f"{id}-{when}", text, of, paper=paper, **judged)
    return judge(f"{id}-{when}", text, CONTROL, source=f"{of.source}, at an earlier stop", paper=paper, **judged)


def _judge_numbers(errors: Mapping[str, np.ndarray], active: Mapping[str, np.ndarray], when: str) -> list[Claim]:
    """Judge each of the paper's four numbers."""
    of_error = [
        _judge_at(
            when,
            f"{IDS[arm]}-error",
            f"{arm}: test error in %",
            OF_ERROR[arm],
            PAPER_ERROR[arm],
            measured=errors[arm],
            low=PAPER_ERROR[arm] - POINTS,
            high=PAPER_ERROR[arm] + POINTS,
            why=WHY.get(f"{IDS[arm]}-error-{when}", ""),
        )
        for arm in (CLEAN, NOISY)
    ]
    of_active = [
        _judge_at(
            when,
            f"{IDS[arm]}-active",
            f"{arm}: active neurons of {UNITS} on the training set",
            OF_ACTIVE[arm],
            PAPER_ACTIVE[arm],
            measured=active[arm],
            low=PAPER_ACTIVE[arm] * (1 - RELATIVE),
            high=PAPER_ACTIVE[arm] * (1 + RELATIVE),
            why=WHY.get(f"{IDS[arm]}-active-{when}", ""),
        )
        for arm in (CLEAN, NOISY)
    ]
    return [*of_error, *of_active]


def _judge_effects(errors: Mapping[str, np.ndarray], active: Mapping[str, np.ndarray], when: str) -> list[Claim]:
    """Judge the effects of noise, paired by seed."""
    return [
        _judge_at(
            when,
            "lower-error",
            "noise lowers the test error (difference in points)",
            STATEMENTS["hypercube-better"],
            PAPER_ERROR[NOISY] - PAPER_ERROR[CLEAN],
            measured=errors[NOISY] - errors[CLEAN],
            high=-100 / TEST_SIZE,  # one example
        ),
        _judge_at(
            when,
            "half-active",
            "noise at least halves the active neurons (ratio)",
            STATEMENTS["hypercube-sparser"],
            PAPER_ACTIVE[NOISY] / PAPER_ACTIVE[CLEAN],
            measured=active[NOISY] / active[CLEAN],
            high=0.5,
        ),
    ]


def _judge_fits(fit: Mapping[str, np.ndarray]) -> list[Claim]:
    statements = {CLEAN: "hypercube-fits", NOISY: "hypercube-fits-noise"}
    return [
        judge(
            f"{IDS[arm]}-fits",
            f"{arm}: the train error reaches zero (fraction of seeds)",
            STATEMENTS[statements[arm]],
            paper=1.0,
            measured=fit[arm] >= 0,
            low=ALMOST_ALL,
        )
        for arm in (CLEAN, NOISY)
    ]


def _judge_stops(runs: Runs, stable: Mapping[str, np.ndarray]) -> list[Claim]:
    """Judge that the paper's rule ends training, for each seed by itself; the paper shows means over seeds."""
    return [
        judge(
            f"{IDS[arm]}-stops",
            f"{arm}: the test error becomes stable by step {_active(run).steps[-1]:,} (fraction of seeds)",
            CONTROL,
            source="chosen: stable is a change of at most one point over a doubling of the steps",
            measured=stable[arm] >= 0,
            low=ALMOST_ALL,
            why="The test error of a single network with noise fluctuates by more than a point; its mean over seeds "
            "does not.",
        )
        for arm, run in runs.items()
    ]


def _judge_vanilla(errors: np.ndarray) -> Claim:
    return judge(
        "clean-guesses",
        f"p = 0: the network is not a lot better than a guess (test error in %, {_WHERE['stable']})",
        STATEMENTS["hypercube-vanilla"],
        paper=PAPER_ERROR[CLEAN],
        measured=errors,
        low=NOT_A_LOT_BETTER,
        why=WHY.get("clean-error-stable", ""),
    )


def _judge_time_to_fit(runs: Runs, fit: Mapping[str, np.ndarray]) -> Claim:
    """Judge that noise takes longer to fit.

    The ratio is NaN if the network without noise never fits. A network with noise that never fits counts with the last
    step, which is a lower bound.
    """
    steps = {arm: _steps(run, fit[arm]) for arm, run in runs.items()}
    return judge(
        "longer-to-fit",
        "noise takes longer to fit (steps to the first zero train error, ratio by seed)",
        STATEMENTS["hypercube-longer"],
        paper="longer",
        measured=np.where(fit[CLEAN] >= 0, steps[NOISY] / steps[CLEAN], np.nan),
        low=1.0,
    )


def _judge_on_test(runs: Runs, stable: Mapping[str, np.ndarray]) -> list[Claim]:
    return [
        judge(
            f"{IDS[arm]}-active-on-test",
            f"{arm}: as many neurons are active on the test set (ratio to the training set, {_WHERE['stable']})",
            STATEMENTS["hypercube-on-test"],
            paper=1.0,
            measured=_values(_active(run, "test"), stable[arm]) / _values(_active(run), stable[arm]),
            low=1 - SAME,
            high=1 + SAME,
            why=WHY.get(f"{IDS[arm]}-active-on-test", ""),
        )
        for arm, run in runs.items()
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 4.4), layout="constrained")
    left, right = picture.subplots(1, 2)
    for arm, run in runs.items():
        train, test = measured(run, "error", "train"), _test_error(run)
        active, on_test = _active(run), _active(run, "test")
        draw_band(left, test.steps, test.values, COLORS[arm])
        draw_band(left, train.steps, 100 * train.values, COLORS[arm], linestyle="--", linewidth=1.2)
        draw_band(right, active.steps, active.values, COLORS[arm], linestyle="--", linewidth=1.2)
        draw_band(right, on_test.steps, on_test.values, COLORS[arm])
        _mark_stops(left, run, test, COLORS[arm])
        _mark_stops(right, run, on_test, COLORS[arm])
    for axis, numbers, unit in ((left, PAPER_ERROR, " %"), (right, PAPER_ACTIVE, "")):
        for arm, number in numbers.items():
            mark_paper(axis, number, f"paper\n{number:.0f}{unit}", COLORS[arm])
    left.set(ylabel="error (%)", title="Train and test error", ylim=(0, 60))
    right.set(ylabel=f"active neurons (of {UNITS})", title="Typical number of active neurons", ylim=(0, 140))
    for axis in (left, right):
        axis.set(xscale="log", xlabel="SGD steps (batches of one)", xlim=(10, _active(runs[NOISY]).steps[-1]))
        plain(axis)
    _draw_legend(right, len(_active(runs[CLEAN]).values))
    return picture


def _mark_stops(axis: Axes, run: RunFolder, curves: Curves, color: str) -> None:
    """Mark each seed where its network first fits (hollow), and where the paper's rule ends training (filled)."""
    for indices, face in ((_first_fit(run), "white"), (_first_stable(run), color)):
        found, values = indices >= 0, _values(curves, indices)
        steps = _steps(run, indices)
        axis.scatter(steps[found], values[found], s=22, color=face, edgecolor=color, linewidth=0.9, zorder=3)


def _draw_legend(axis: Axes, seeds: int) -> None:
    handles = [
        *(Line2D([], [], color=COLORS[arm], linewidth=2, label=f"label noise {arm}") for arm in (CLEAN, NOISY)),
        Line2D([], [], color=GREY, label="test set"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="training set"),
        Line2D(
            [],
            [],
            color=GREY,
            marker="o",
            linestyle="",
            markerfacecolor="white",
            label="a seed's first zero train error",
        ),
        Line2D([], [], color=GREY, marker="o", linestyle="", label="then its test error is stable"),
    ]
    axis.legend(
        handles=handles,
        title=seeds_title(seeds),
        frameon=False,
        loc="lower left",
        fontsize=8,
        title_fontsize=8,
        labelspacing=0.25,
    )


# The paper states U[−√3, √3] for weights, and neither the biases nor whether a changed label may stay the same.
_SCALED = json.dumps(
    [
        {"class_path": "lnsgd.models.Uniform", "init_args": {"bound": round(math.sqrt(3 / inputs), 6)}}
        for inputs in (DIMENSION, UNITS)
    ]
)
VARIANTS = {
    "zero biases": Variant("biases start at zero", ["--model.net.init.biases", "false"]),
    "no biases": Variant("no layer has biases", ["--model.net.bias", "false"]),
    "unit outputs": Variant(
        "weights are U[−√(3/n), √(3/n)] with n inputs of a layer, so that its outputs have unit variance; no biases at "
        "first",
        ["--model.net.init", _SCALED],
    ),
    "PyTorch": Variant("PyTorch's default initialization of both layers", ["--model.net.init", "TorchDefault"]),
    "labels flip": Variant(
        "a label changes sign with probability p = 0.2, and is not replaced by a random one",
        arms={NOISY: ["--model.label_noise.p", "0.4"]},  # a random one of two labels is the same one half of the time
    ),
}

FIGURE = Figure(
    name="cornacchia-hypercube",
    title="Label noise makes a network on the hypercube problem sparser and better (Cornacchia et al., Fig. 1)",
    config=CONFIG,
    scales={"ci": Scale(seeds=3, options=["--data.test_size", "2000"]), "paper": Scale(seeds=20)},
    arms={
        CLEAN: ["--model.label_noise.p", "0", "--trainer.max_steps", "100000"],
        NOISY: ["--model.label_noise.p", "0.2"],
    },
    claims=_claims,
    draw=_draw,
    variants=VARIANTS,
    central=[
        *(f"{IDS[arm]}-{number}-{when}" for when in _WHERE for number in ("error", "active") for arm in (CLEAN, NOISY)),
        *(f"{effect}-{when}" for when in _WHERE for effect in ("lower-error", "half-active")),
        "longer-to-fit",
    ],
)
