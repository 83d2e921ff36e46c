"""Claims on MNIST with label noise: Cornacchia et al., Fig. 5 and 6, and what the text says of other arms."""

from collections.abc import Sequence

import numpy as np

from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import Claim, judge, slug
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.results import measured
from lnsgd.runs.folder import RunFolder

CLEAN, NOISY, SMOOTH = "p = 0", "p = 0.1", "smoothing 0.1"
SOFTMAX_CLEAN, SOFTMAX_NOISY = "softmax, p = 0", "softmax, p = 0.1"
HIDDEN_CLEAN, HIDDEN_NOISY = "one trained layer, p = 0", "one trained layer, p = 0.1"

CONFIG = "figures/cornacchia-mnist.yaml"
UNITS = read_setting(shipped_config(CONFIG), "model.net.widths")[1]

# The paper's numbers: active fraction on the training set in percent, and digit-associated neurons.
PAPER_ACTIVE = {CLEAN: 25.0, NOISY: 6.0}
PAPER_ASSOCIATED = {CLEAN: 104.0, NOISY: 222.0}

# The paper's effects of noise on these: a ratio and a difference.
EFFECTS = (PAPER_ACTIVE[NOISY] / PAPER_ACTIVE[CLEAN], PAPER_ASSOCIATED[NOISY] - PAPER_ASSOCIATED[CLEAN])

# A number within this relative distance of the paper's counts as reproduced.
RELATIVE = 0.2

# One example of a test set of 10,000, in percentage points.
ONE_EXAMPLE = 0.01


def active_fraction(run: RunFolder) -> np.ndarray:
    """Return the active fraction on the training set at the end, (R,)."""
    return measured(run, "active_fraction", "train").last


def associated_count(run: RunFolder) -> np.ndarray:
    """Return the number of digit-associated neurons at the end, (R,)."""
    return measured(run, "associated_count", "train").last


def test_error(run: RunFolder) -> np.ndarray:
    """Return the error on the test set at the end, in percent, (R,)."""
    return 100 * measured(run, "error", "test").last


def judge_arms(runs: Runs) -> list[Claim]:
    """Judge all arms, or the two central ones if a reading trains no others."""
    end = _at_end(runs[CLEAN])
    return [
        *_judge_numbers(runs, end),
        *_judge_effects("", EFFECTS, runs[CLEAN], runs[NOISY], end),
        judge(
            "lower-error",
            f"noise lowers the test error (difference in points, {end.replace('training set, ', '')})",
            STATEMENTS["mnist-error"],
            paper="lower",
            measured=test_error(runs[NOISY]) - test_error(runs[CLEAN]),
            high=-ONE_EXAMPLE,
        ),
        *(_judge_others(runs) if SMOOTH in runs else []),
    ]


def _judge_others(runs: Runs) -> list[Claim]:
    """Judge what is claimed of the other arms, which readings of --variants do not train."""
    return [
        *_judge_densities(runs, _at_end(runs[CLEAN])),
        *_judge_effects(
            "one trained layer",
            ("similar", "similar"),
            runs[HIDDEN_CLEAN],
            runs[HIDDEN_NOISY],
            _at_end(runs[HIDDEN_CLEAN]),
        ),
        *_judge_smoothing(runs, _at_end(runs[CLEAN])),
        *_judge_start(runs[CLEAN], _at_end(runs[CLEAN])),
    ]


def _at_end(run: RunFolder) -> str:
    return f"training set, step {measured(run, 'active_fraction', 'train').steps[-1]:,}"


def _judge_numbers(runs: Runs, end: str) -> list[Claim]:
    """Judge the numbers that the paper gives for both main arms."""
    numbers = {
        "active": (
            "active neurons in %",
            STATEMENTS["mnist-active"],
            PAPER_ACTIVE,
            lambda run: 100 * active_fraction(run),
        ),
        "associated": (
            f"digit-associated neurons of {UNITS}",
            STATEMENTS["mnist-associated"],
            PAPER_ASSOCIATED,
            associated_count,
        ),
    }
    return [
        judge(
            f"{name}-{slug(arm)}",
            f"{arm}: {what} ({end})",
            statement,
            paper=number,
            measured=read(runs[arm]),
            low=number * (1 - RELATIVE),
            high=number * (1 + RELATIVE),
        )
        for name, (what, statement, paper, read) in numbers.items()
        for arm, number in paper.items()
    ]


def _judge_effects(
    layers: str, stated: Sequence[float | str], clean: RunFolder, noisy: RunFolder, end: str
) -> list[Claim]:
    """Judge the effects of noise on active and digit-associated neurons, paired by seed.

    ``layers`` says which layers are trained, unless all are; ``stated`` has the paper's number or word for both.
    """
    prefix, ids = (f"{layers}: ", f"{slug(layers)}-") if layers else ("", "")
    of_active, of_associated = ("mnist-one-layer",) * 2 if layers else ("mnist-active", "mnist-more-associated")
    active, associated = stated
    return [
        judge(
            f"{ids}half-active",
            f"{prefix}noise at least halves the active neurons (ratio, {end})",
            STATEMENTS[of_active],
            paper=active,
            measured=active_fraction(noisy) / active_fraction(clean),
            high=0.5,
        ),
        judge(
            f"{ids}more-associated",
            f"{prefix}noise makes more neurons digit-associated (difference, {end})",
            STATEMENTS[of_associated],
            paper=associated,
            measured=associated_count(noisy) - associated_count(clean),
            low=1,
        ),
    ]


def _judge_densities(runs: Runs, end: str) -> list[Claim]:
    """Judge which of two arms leaves more neurons active, paired by seed."""
    softmax = "softmax leaves more neurons active than eq. (3)"
    compared = {
        "smoothing-denser": ("label smoothing 0.1 leaves more neurons active than noise 0.1", SMOOTH, NOISY),
        "softmax-denser": (f"p = 0: {softmax}", SOFTMAX_CLEAN, CLEAN),
        "softmax-denser-noisy": (f"p = 0.1: {softmax}", SOFTMAX_NOISY, NOISY),
    }
    return [
        judge(
            name,
            f"{claim} (ratio, {end})",
            STATEMENTS["smoothing-denser" if arm == SMOOTH else "mnist-softmax"],
            paper="more",
            measured=active_fraction(runs[arm]) / active_fraction(runs[other]),
            low=1.0,
        )
        for name, (claim, arm, other) in compared.items()
    ]


def _judge_smoothing(runs: Runs, end: str) -> list[Claim]:
    """Judge what is said of label smoothing by itself."""
    return [
        judge(
            "smoothing-sparsifies",
            f"label smoothing 0.1 leaves fewer neurons active than p = 0 (ratio, {end})",
            STATEMENTS["smoothing-sparsifies"],
            paper="fewer",
            measured=active_fraction(runs[SMOOTH]) / active_fraction(runs[CLEAN]),
            high=1.0,
        ),
        judge(
            "smoothing-most-associated",
            f"label smoothing 0.1: fraction of the neurons that are digit-associated ({end})",
            STATEMENTS["smoothing-associated"],
            paper="most",
            measured=associated_count(runs[SMOOTH]) / UNITS,
            low=0.5,
        ),
    ]


def _judge_start(clean: RunFolder, end: str) -> list[Claim]:
    """Judge the sparsity that training brings about without any noise."""
    active = measured(clean, "active_fraction", "train")
    numbers = {
        "half-at-start": (
            f"{CLEAN}: the initial weights make half of the neurons active, in % (training set, step 0)",
            "mnist-half-at-start",
            50.0,
        ),
        "quarter-at-end": (
            f"{CLEAN}: training alone leaves a quarter of the neurons active, in % ({end})",
            "mnist-quarter-at-end",
            PAPER_ACTIVE[CLEAN],
        ),
    }
    return [
        judge(
            name,
            what,
            STATEMENTS[statement],
            paper=number,
            measured=100 * values,
            low=number * (1 - RELATIVE),
            high=number * (1 + RELATIVE),
        )
        for (name, (what, statement, number)), values in zip(numbers.items(), (active.values[:, 0], active.last))
    ]
