"""The hypercube: reading at the first fit, claims and picture."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.collections import PathCollection

from lnsgd.data import Hypercube
from lnsgd.figures.cornacchia.hypercube import CLEAN, FIGURE, NOISY, first_fit, first_stable
from lnsgd.figures.cornacchia.hypercube_explicit import (
    PAPER_BIAS,
    explicit_network,
    measure_explicit,
    typical_active,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.results import Curves
from lnsgd.training.cli import train
from tests.figures.handmade import handmade, within_bounds

STEPS = [0, 10, 100, 200, 400]

# Two seeds at each of the steps. Without noise they fit at steps 10 and 100; the first one's test error is stable at
# step 200, the second one's at 400. With noise they fit at step 200 and never; the first is stable at 400.
TRAIN = {
    CLEAN: np.array([[0.5, 0.0, 0.0, 0.0, 0.0], [0.5, 0.1, 0.0, 0.0, 0.0]]),
    NOISY: np.array([[0.5, 0.2, 0.1, 0.0, 0.0], [0.5, 0.2, 0.1, 0.1, 0.1]]),
}
TEST = {
    CLEAN: np.array([[0.5, 0.5, 0.48, 0.475, 0.3], [0.5, 0.5, 0.5, 0.47, 0.475]]),
    NOISY: np.array([[0.5, 0.4, 0.3, 0.2, 0.205], [0.5, 0.4, 0.3, 0.3, 0.22]]),
}
ACTIVE = {
    CLEAN: np.array([[120.0, 95, 94, 93, 92], [120, 100, 93, 92, 91]]),
    NOISY: np.array([[120.0, 80, 60, 46, 44], [120, 80, 60, 48, 45]]),
}
Tables = dict[str, np.ndarray]


def runs_of(folder: Path, train_error: Tables = TRAIN, test_error: Tables = TEST, active: Tables = ACTIVE) -> Runs:
    return {
        arm: handmade(
            folder / arm,
            STEPS,
            {
                ("error", "train", ""): train_error[arm],
                ("error", "test", ""): test_error[arm],
                ("active_count", "train", "net.activations.0"): active[arm],
                ("active_count", "test", "net.activations.0"): 1.05 * active[arm],
            },
        )
        for arm in FIGURE.arms
    }


def curves(*rows: list[float], steps: list[int] = STEPS) -> Curves:
    return Curves(np.array(steps), np.array(rows), np.array(rows))


def test_first_fit_is_the_first_measurement_without_a_training_error() -> None:
    errors = np.array([[0.5, 0.0, 0.1, 0.0], [0.0] * 4, [0.5, 0.4, 0.3, 0.2], [0.5, 0.0, np.nan, np.nan], [np.nan] * 4])
    assert first_fit(Curves(np.arange(4), errors, errors)).tolist() == [1, 0, -1, 1, -1]


def test_training_stops_where_the_test_error_is_stable_over_a_doubling_after_the_fit() -> None:
    train = curves([0.5, 0, 0, 0, 0], [0.5, 0, 0, 0, 0], [0.5, 0.1, 0.1, 0, 0], [0.5, 0.1, 0.1, 0.1, 0.1])
    test = curves([50, 40, 30, 29.5, 10], [50, 40, 30, 20, 10], [50, 40, 30, 30, 29], [50, 40, 30, 30, 30])
    assert first_stable(train, test).tolist() == [3, -1, 4, -1]


def test_numbers_are_read_where_training_stops(tmp_path: Path) -> None:
    claims = {claim.id: claim for claim in FIGURE.claims(runs_of(tmp_path))}
    expected = {
        "clean-error-stable": (47.5 + 47.5) / 2,
        "noisy-error-stable": (20.5 + 22) / 2,  # the second never stops and is read at the end
        "clean-active-stable": (93 + 91) / 2,
        "noisy-active-stable": (44 + 45) / 2,
        "lower-error-stable": (20.5 - 47.5 + 22 - 47.5) / 2,
        "half-active-stable": (44 / 93 + 45 / 91) / 2,
        "clean-error-fit": (50 + 50) / 2,
        "noisy-error-fit": (20 + 22) / 2,
        "clean-active-fit": (95 + 93) / 2,
        "noisy-active-fit": (46 + 45) / 2,
        "lower-error-fit": (20 - 50 + 22 - 50) / 2,
        "half-active-fit": (46 / 95 + 45 / 93) / 2,
        "clean-fits": 1,
        "noisy-fits": 0.5,
        "clean-stops": 1,
        "noisy-stops": 0.5,
        "clean-guesses": 47.5,
        "longer-to-fit": (200 / 10 + 400 / 100) / 2,
        "clean-active-on-test": 1.05,
        "noisy-active-on-test": 1.05,
    }
    assert {id: claims[id].measured for id in expected} == pytest.approx(expected)
    assert {claims[id].kind for id in expected if id.endswith("-fit") and id != "longer-to-fit"} == {"control"}
    assert set(claims) - set(expected) == {
        *("explicit-active", "explicit-silent", "explicit-represents", "explicit-with-smaller-bias")
    }
    assert set(FIGURE.central) <= set(expected)


def test_the_papers_numbers_hold(tmp_path: Path) -> None:
    tables = [{CLEAN: table[CLEAN], NOISY: table[NOISY][[0, 0]]} for table in (TRAIN, TEST, ACTIVE)]
    claims = FIGURE.claims(runs_of(tmp_path, *tables))
    assert [claim.id for claim in claims if not within_bounds(claim)] == ["explicit-active", "explicit-represents"]


def test_exchanged_arms_fail_all_claims_on_noise(tmp_path: Path) -> None:
    swapped = [{CLEAN: table[NOISY], NOISY: table[CLEAN]} for table in (TRAIN, TEST, ACTIVE)]
    claims = {claim.id: claim for claim in FIGURE.claims(runs_of(tmp_path, *swapped))}
    assert not any(within_bounds(claims[id]) for id in FIGURE.central)
    assert math.isnan(claims["longer-to-fit"].measured)  # a network without noise never fits


@pytest.mark.parametrize("active", [113, 75.2, 112.8, 75])
def test_a_number_is_reproduced_within_a_fifth(tmp_path: Path, active: float) -> None:
    table = {CLEAN: np.full((2, 5), active), NOISY: ACTIVE[NOISY]}
    claims = {claim.id: claim for claim in FIGURE.claims(runs_of(tmp_path, active=table))}
    assert within_bounds(claims["clean-active-stable"]) is (94 * 0.8 <= active <= 94 * 1.2)


def test_draws_two_dots_for_each_seed_that_stops(tmp_path: Path) -> None:
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(io.BytesIO(), format="png")
    errors, active = picture.axes
    assert errors.get_xscale() == active.get_xscale() == "log"
    scattered = [
        [len(c.get_offsets()) for c in axis.collections if isinstance(c, PathCollection)] for axis in picture.axes
    ]
    assert scattered == [[2, 2, 1, 1]] * 2
    solid = errors.lines[0]
    assert solid.get_xdata().tolist() == STEPS
    assert solid.get_ydata() == pytest.approx([50, 50, 49, 47.25, 38.75])


def test_the_explicit_network_is_the_papers_formula() -> None:
    x = torch.rand(50, 4) * 2.4 - 1.2
    hinges = (x.abs() - (1 - 0.3 / 2)).clamp(min=0).sum(1)
    assert explicit_network(4, 0.3)(x)[:, 0].tolist() == pytest.approx((hinges - 0.5).tolist(), abs=1e-6)


def test_the_explicit_network_misclassifies_what_its_formula_says() -> None:
    """Independently: one coordinate adds 0.15, the others (|u| − 0.85)₊ with u uniform; b = −0.5 needs a sum of 0.5."""
    found = measure_explicit(Hypercube(60, 0.3, test_size=20_000), PAPER_BIAS)
    uniform = np.random.default_rng(0).random((200_000, 59))
    wrong = (0.15 + np.maximum(uniform - 0.85, 0).sum(1) < 0.5).mean()
    assert found["error_outer"] == pytest.approx(wrong, abs=0.01)
    assert wrong == pytest.approx(0.09, abs=0.003)
    assert found["active_outer"] == pytest.approx(typical_active(60, 0.3), abs=0.1)
    assert (found["active_inner"], found["error_inner"]) == (0, 0)


def test_claims_name_the_network_of_the_config() -> None:
    config = yaml.safe_load(FIGURE.config_path(CLEAN).read_text())
    model = config["model"]["init_args"]
    dimension, hidden, _ = model["net"]["init_args"]["widths"]
    assert (dimension, hidden) == (60, 240)
    assert model["optimizer"]["init_args"]["lr"] == pytest.approx(1 / dimension, rel=1e-6)
    assert model["net"]["init_args"]["init"]["init_args"]["bound"] == pytest.approx(math.sqrt(3), rel=1e-6)


@pytest.mark.slow
def test_same_seeds_same_numbers(tmp_path: Path) -> None:
    short = ["--trainer.max_steps", "500", "--data.test_size", "50", "--replicas.seeds", "2"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    found = []
    for number in range(2):
        runs = {}
        for arm, options in FIGURE.arms.items():
            folder = ["--run_dir", str(tmp_path / f"{number}-{arm}")]
            cli = train(["fit", "--config", str(FIGURE.config_path(arm)), *options, *short, *quiet, *folder])
            assert cli.run_folder is not None
            runs[arm] = cli.run_folder
        found.append(FIGURE.claims(runs))
    assert str(found[0]) == str(found[1])  # NaN is not itself
    assert found[0][0].n == 2
