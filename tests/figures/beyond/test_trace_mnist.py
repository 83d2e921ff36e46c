"""The trace of the Hessian on MNIST: claims from handmade runs that follow the theory, or do not."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lnsgd.figures.beyond.trace_mnist import (
    CURVATURE,
    FIGURE,
    JACOBIAN,
    LOGISTIC,
    SOFTMAX,
    SQUARED,
    collapse,
    in_slow_time,
    over_clean,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.runs.folder import RunFolder
from tests.figures.handmade import handmade, within_bounds

STEPS = [0, *(int(step) for step in np.logspace(0, 6, 19))]
RATE = 0.003
LEVELS = (0.0, 0.1, 0.2, 0.4)


def run_of(folder: Path, levels: tuple[float, ...], regularizer: np.ndarray, curvature: np.ndarray) -> RunFolder:
    """Write a run with two seeds at each level; R is (levels, T), the curvature at the end (levels,)."""
    both = np.repeat(regularizer, 2, axis=0) * np.tile([1.0, 1.1], len(levels))[:, None]
    ones = np.ones_like(both)
    less = np.repeat(1 - 0.5 * np.array(levels), 2)[:, None] * ones
    curves = {
        ("implicit_regularizer", "train", ""): both,
        ("hessian_trace", "train", ""): both * np.repeat(curvature, 2)[:, None],
        ("active_fraction", "train", "total"): less,
        ("error", "test", ""): 0.1 * less,
        ("error", "train", ""): 0 * ones,
    }
    settings = [{"seed": seed, "noise": level} for level in levels for seed in (0, 1)]
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": RATE}}
    return handmade(folder, STEPS, curves, settings, {"model": {"init_args": {"optimizer": optimizer}}})


def runs_of(folder: Path, power: float = 2.0, curvatures: tuple[float, float] = (0.01, 0.05)) -> Runs:
    """Write runs where R falls as (1 + t)^(−½) in the time t ∝ (ησ)^power·steps, which is 1 at the end for σ = 0.1."""
    times = np.array([[(level / 0.1) ** power * step / 1e6 for step in STEPS] for level in LEVELS])
    uniform = np.array([[100.0] * len(STEPS), [60.0] * len(STEPS)])
    return {
        SQUARED: run_of(folder / "squared", LEVELS, 200 * (1 + times) ** -0.5, np.full(len(LEVELS), 2.0)),
        **{arm: run_of(folder / arm, (0.0, 0.2), uniform, np.array(curvatures)) for arm in (LOGISTIC, SOFTMAX)},
    }


def failing(runs: Runs) -> set[str]:
    return {claim.id for claim in FIGURE.claims(runs) if not within_bounds(claim)}


def test_all_claims_hold_for_curves_of_the_theory(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    assert failing(runs) == set()
    assert over_clean(runs[SQUARED], JACOBIAN) == pytest.approx([17**-0.5] * 2)
    assert over_clean(runs[LOGISTIC], CURVATURE) == pytest.approx([5, 5])
    s, values = in_slow_time(runs[SQUARED], "implicit_regularizer", "train", 0.2)
    assert s[-1] == pytest.approx(RATE**2 * 0.04 * 1e6) and values.shape == (2, len(STEPS) - 1)


WRONG: Mapping[str, tuple[dict[str, object], set[str]]] = {
    # A drift that is linear in σ: 0.1 ends at t = 1, where 0.2 has had twice the s.
    "another time": ({"power": 1.0}, {"slow-time-0-1-0-2", "slow-time-0-2-0-4"}),
    "falling curvature": (
        {"curvatures": (0.05, 0.01)},
        {f"{arm}-{what}" for arm in (LOGISTIC, SOFTMAX) for what in ("tr-h", "curvature-c")},
    ),
}


@pytest.mark.parametrize(("changed", "fail"), WRONG.values(), ids=WRONG)
def test_claims_fail_for_other_curves(tmp_path: Path, changed: dict[str, object], fail: set[str]) -> None:
    assert failing(runs_of(tmp_path, **changed)) == fail  # type: ignore[arg-type]


def test_curves_of_one_slow_time_collapse(tmp_path: Path) -> None:
    run = runs_of(tmp_path)[SQUARED]
    assert collapse(run, 0.1, 0.2) == pytest.approx([1, 1], rel=0.01)
    assert FIGURE.draw(runs_of(tmp_path / "more")).axes[0].get_ylabel() == "R"
