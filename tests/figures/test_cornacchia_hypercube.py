"""Fig. 1, the hypercube: where it is read, when its claims hold, and that it is drawn."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from lnsgd.figures.claims import Claim
from lnsgd.figures.cornacchia_hypercube import CLEAN, FIGURE, NOISY, first_fit
from lnsgd.figures.figure import Runs
from lnsgd.figures.results import Curves
from lnsgd.training import train
from tests.figures.handmade import handmade

STEPS = [0, 1, 10, 100, 1000]

# Two seeds at each of the steps. Without noise they fit at steps 10 and 100, with noise at step 1000 and never.
TRAIN = {
    CLEAN: np.array([[0.5, 0.1, 0.0, 0.0, 0.0], [0.5, 0.2, 0.1, 0.0, 0.0]]),
    NOISY: np.array([[0.5, 0.3, 0.2, 0.1, 0.0], [0.5, 0.3, 0.2, 0.1, 0.1]]),
}
TEST = {
    CLEAN: np.array([[0.5, 0.5, 0.48, 0.4, 0.3], [0.5, 0.5, 0.5, 0.5, 0.3]]),
    NOISY: np.array([[0.5, 0.5, 0.4, 0.3, 0.2], [0.5, 0.5, 0.4, 0.3, 0.22]]),
}
ACTIVE = {
    CLEAN: np.array([[120.0, 110, 95, 94, 93], [120, 110, 100, 93, 92]]),
    NOISY: np.array([[120.0, 110, 80, 60, 46], [120, 110, 80, 60, 48]]),
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
            },
        )
        for arm in FIGURE.arms
    }


def find(claims: list[Claim], *words: str) -> Claim:
    (found,) = (claim for claim in claims if all(word in claim.claim for word in words))
    return found


def test_first_fit_is_the_first_measurement_without_a_training_error() -> None:
    errors = np.array([[0.5, 0.0, 0.1, 0.0], [0.0] * 4, [0.5, 0.4, 0.3, 0.2], [0.5, 0.0, np.nan, np.nan], [np.nan] * 4])
    assert first_fit(Curves(np.arange(4), errors, errors)).tolist() == [1, 0, -1, 1, -1]


def test_numbers_are_read_where_each_seed_first_fits(tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(tmp_path))
    readings = {
        ("p = 0:", "test error"): (48 + 50) / 2,
        ("p = 0.2:", "test error"): (20 + 22) / 2,  # the second never fits and is read at the end
        ("p = 0:", "active"): (95 + 93) / 2,
        ("p = 0.2:", "active"): (46 + 48) / 2,
        ("lowers", "first zero"): (20 - 48 + 22 - 50) / 2,
        ("halves", "first zero"): (46 / 95 + 48 / 93) / 2,
        ("lowers", "step 1,000"): (20 - 30 + 22 - 30) / 2,
        ("halves", "step 1,000"): (46 / 93 + 48 / 92) / 2,
        ("longer",): (1000 / 10 + 1000 / 100) / 2,
    }
    assert len(claims) == len(readings)
    for words, number in readings.items():
        assert find(claims, *words).measured == pytest.approx(number), words
        assert find(claims, *words).n == 2


def test_the_paper_s_own_numbers_hold(tmp_path: Path) -> None:
    active = {CLEAN: ACTIVE[CLEAN] + 1, NOISY: ACTIVE[NOISY] - 1}  # at most half of what there is without noise
    assert all(claim.holds for claim in FIGURE.claims(runs_of(tmp_path, active=active)))


def test_exchanged_arms_hold_nowhere(tmp_path: Path) -> None:
    swapped = [{CLEAN: table[NOISY], NOISY: table[CLEAN]} for table in (TRAIN, TEST, ACTIVE)]
    claims = FIGURE.claims(runs_of(tmp_path, *swapped))
    assert not any(claim.holds for claim in claims)
    assert math.isnan(find(claims, "longer").measured)  # a network without noise never fits


def test_noise_that_fits_sooner_does_not_take_longer(tmp_path: Path) -> None:
    same = {CLEAN: TRAIN[CLEAN], NOISY: TRAIN[CLEAN]}
    sooner = {CLEAN: TRAIN[CLEAN], NOISY: np.array([[0.5, 0.0, 0.0, 0.0, 0.0]] * 2)}
    assert find(FIGURE.claims(runs_of(tmp_path / "same", same)), "longer").measured == 1
    found = find(FIGURE.claims(runs_of(tmp_path / "sooner", sooner)), "longer")
    assert (found.holds, found.measured) == (False, pytest.approx((0.1 + 0.01) / 2))


@pytest.mark.parametrize("active", [113, 75.2, 112.8, 75])
def test_a_number_is_reproduced_within_a_fifth(tmp_path: Path, active: float) -> None:
    table = {CLEAN: np.full((2, 5), active), NOISY: ACTIVE[NOISY]}
    claim = find(FIGURE.claims(runs_of(tmp_path, active=table)), "p = 0:", "active")
    assert claim.holds is (94 * 0.8 <= active <= 94 * 1.2)


def test_it_is_drawn_with_a_dot_for_every_seed_that_fits(tmp_path: Path) -> None:
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(io.BytesIO(), format="png")
    errors, active = picture.axes
    assert errors.get_xscale() == active.get_xscale() == "log"
    dots = [[len(c.get_offsets()) for c in axis.collections if len(c.get_offsets())] for axis in picture.axes]
    bands = 1  # a band counts as one
    assert [sorted(n for n in of_axis if n > bands) for of_axis in dots] == [[2], [2]]
    solid = errors.lines[0]
    assert solid.get_xdata().tolist() == [1, 10, 100, 1000]
    assert solid.get_ydata() == pytest.approx([50, 49, 45, 30])


def test_claims_speak_of_the_config_s_network() -> None:
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
