"""Matrix sensing: reading of curves, claims, picture, and reproducibility of a short run."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from lnsgd.figures.blanc.matrix_sensing import (
    CONTROLS,
    FIGURE,
    GAUSSIAN,
    KEPT,
    LARGEST,
    NONE,
    SENSING,
    SMALL_STD,
    STD,
    recovery,
    select_level,
    steps_below,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.results import Curves, measured
from lnsgd.training.cli import train
from tests.figures.handmade import handmade, within_bounds

SIZE, RANK, SEEDS, LR = 20, 2, 3, 5e-4
STEPS = np.array([0, 10, 100, 1000, 10_000, 100_000])
FACTOR = 2 * (SIZE + 1)

LOSS, RECOVERY = ("loss", "train", ""), ("recovery_error", "", "")
NORM, REGULARIZER = ("norm", "", "net.factor"), ("implicit_regularizer", "test", "")


def curve(*values: float) -> np.ndarray:
    """Make a curve that differs between seeds by one per cent."""
    return np.array(values) * (1 + 0.01 * np.arange(SEEDS)[:, None])


# Measured numbers of each arm by noise and step size, as the paper and the theory would have them.
FIT = curve(20, 10, 0.1, 1e-3, 1e-6, 1e-9)
FLOOR = FACTOR * RANK * LR * STD**2
GOOD: dict[str, dict[tuple[float, float], Mapping[tuple[str, str, str], np.ndarray]]] = {
    SENSING: {
        (NONE, LR): {
            LOSS: FIT,
            RECOVERY: curve(20, 12, 10, 10, 10, 10),
            NORM: np.sqrt(curve(20, 15, 12, 12, 12, 12)),
            REGULARIZER: FACTOR * curve(20, 15, 12, 12, 12, 12),
        },
        (STD, LR): {
            LOSS: curve(20, 10, 0.1, 0.05, 0.01, FLOOR),
            RECOVERY: curve(20, 12, 10, 9, 1, 1e-3),
            NORM: np.sqrt(curve(20, 15, 12, 11, 3, RANK)),
            REGULARIZER: FACTOR * curve(20, 15, 12, 11, 3, RANK),
        },
    },
    CONTROLS: {
        (noise, lr): {RECOVERY: values}
        for (noise, lr), values in {
            (NONE, LR): curve(20, 12, 10, 10, 10, 10),
            (NONE, LR / 2): curve(20, 12, 10, 10, 10, 10),
            (SMALL_STD, LR): curve(20, 12, 10, 10, 9, 6),
            (SMALL_STD, LR / 2): curve(20, 12, 10, 10, 10, 9),
            # Half of 10 where the line on logarithmic axes passes it: at 4·10³ and at 10³.
            (STD, LR): curve(20, 12, 10, 5 * 0.999, 1, 1e-3),
            (STD, LR / 2): curve(20, 12, 10, 5 * 10 ** (math.log10(4) / 2), 5 / 10 ** ((1 - math.log10(4)) / 2), 0.1),
        }.items()
    },
    KEPT: {(NONE, LR): {RECOVERY: curve(20, 12, 10, 10, 11, 11)}},
    GAUSSIAN: {
        (NONE, LR): {RECOVERY: curve(20, 12, 10, 10, 10, 10)},
        (STD, LR): {RECOVERY: curve(20, 12, 10, 9, 1, 1e-3)},
    },
}


def runs_of(folder: Path, arms: Mapping[str, Mapping] = GOOD) -> Runs:
    runs = {}
    for arm, cells in arms.items():
        names = list(next(iter(cells.values())))
        curves = {name: np.concatenate([cell[name] for cell in cells.values()]) for name in names}
        settings = [{"seed": s, "noise": noise, "lr": lr} for noise, lr in cells for s in range(SEEDS)]
        runs[arm] = handmade(folder / arm.replace(" ", "_"), STEPS, curves, settings)
        sizes = {"data": {"init_args": {"size": SIZE, "rank": RANK}}}
        runs[arm].config.write_text(yaml.safe_dump(sizes))
    return runs


def changed(arm: str, cell: tuple[float, float], name: tuple[str, str, str], values: np.ndarray) -> Mapping:
    """Return GOOD with one entry changed."""
    return {**GOOD, arm: {**GOOD[arm], cell: {**GOOD[arm][cell], name: values}}}


def test_curves_are_read_by_level_and_step_size(tmp_path: Path) -> None:
    run = runs_of(tmp_path)[CONTROLS]
    every = measured(run, "recovery_error")
    np.testing.assert_array_equal(select_level(run, every, SMALL_STD).values, GOOD[CONTROLS][SMALL_STD, LR][RECOVERY])
    np.testing.assert_array_equal(recovery(run, STD, 1).values, GOOD[CONTROLS][STD, LR / 2][RECOVERY])


def test_a_reading_of_the_noise_level_is_the_largest_level_of_its_run(tmp_path: Path) -> None:
    cells = {(SMALL_STD if noise else NONE, lr): cell for (noise, lr), cell in GOOD[SENSING].items()}
    run = runs_of(tmp_path, {SENSING: cells})[SENSING]
    np.testing.assert_array_equal(recovery(run, LARGEST).values, GOOD[SENSING][STD, LR][RECOVERY])


def test_steps_below_a_level_are_interpolated_between_measurements() -> None:
    values = np.array([[8, 4, 1, 0.01], [8, 4, 1, 1], [0.1, 0.1, 0.1, 0.1]])
    found = steps_below(Curves(np.array([0, 10, 100, 1000]), values, values), np.array([0.1, 0.1, 0.2]))
    assert found[0] == pytest.approx(10**2.5)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(10)


def test_claims_hold_for_what_the_paper_says(tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(tmp_path))
    assert [(within_bounds(claim), claim.n) for claim in claims] == [(True, SEEDS)] * 13
    (scale,) = [claim for claim in claims if claim.claim.startswith("time scale")]
    assert scale.measured == pytest.approx(4, rel=0.02)


STAYS = curve(20, 12, 10, 10, 10, 10)
BROKEN = {
    "train error without noise": (SENSING, (NONE, LR), LOSS, STAYS),
    "train error with noise goes": (SENSING, (STD, LR), LOSS, STAYS),
    "quickly": (SENSING, (STD, LR), LOSS, curve(20, 10, 5, 5, 5, 1e-3)),
    "test error ‖UUᵀ − X*‖² without noise": (SENSING, (NONE, LR), RECOVERY, curve(20, 10, 1, 0.1, 0.1, 0.1)),
    "test error with noise": (SENSING, (STD, LR), RECOVERY, STAYS),
    "E‖∇h‖²": (SENSING, (NONE, LR), REGULARIZER, FACTOR / 2 * curve(20, 15, 12, 12, 12, 12)),
    "with noise the nuclear norm": (SENSING, (STD, LR), NORM, np.sqrt(curve(20, 15, 12, 11, 3, 1.5 * RANK))),
    "train error with noise in the end": (SENSING, (STD, LR), LOSS, curve(20, 10, 0.1, 0.05, 0.01, FLOOR / 3)),
    "time scale": (CONTROLS, (STD, LR / 2), RECOVERY, GOOD[CONTROLS][STD, LR][RECOVERY]),
    "control: noise of std 0.1": (CONTROLS, (SMALL_STD, LR), RECOVERY, GOOD[CONTROLS][STD, LR][RECOVERY]),
    "Gaussian U₀: test error with noise": (GAUSSIAN, (STD, LR), RECOVERY, STAYS),
    "Gaussian U₀: test error without": (GAUSSIAN, (NONE, LR), RECOVERY, curve(20, 10, 1, 0.1, 0.1, 0.1)),
    "control: noise of variance 0.1": (KEPT, (NONE, LR), RECOVERY, curve(20, 12, 10, 9, 1, 1e-3)),
}


@pytest.mark.parametrize(("claim", "change"), BROKEN.items(), ids=BROKEN)
def test_each_claim_fails_with_another_number(claim: str, change: tuple, tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(tmp_path, changed(*change)))
    assert [within_bounds(found) for found in claims if found.claim.startswith(claim)] == [False]


def test_a_test_error_that_never_halves_has_no_time_scale(tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(tmp_path, changed(CONTROLS, (STD, LR / 2), RECOVERY, STAYS)))
    (scale,) = [claim for claim in claims if claim.claim.startswith("time scale")]
    assert (within_bounds(scale), math.isnan(scale.measured)) == (False, True)


def test_draws(tmp_path: Path) -> None:
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(tmp_path / "picture.png")
    assert [axis.get_title().split(" (")[0] for axis in picture.axes] == [
        "Train error",
        "Test error",
        "Controls",
        "The regularizer is the nuclear norm",
    ]
    assert all(axis.get_xscale() == axis.get_yscale() == "log" for axis in picture.axes)


def test_constants_are_those_of_the_config() -> None:
    config = yaml.safe_load(FIGURE.config_path(SENSING).read_text())
    assert config["model"]["init_args"]["label_noise"]["init_args"]["std"] == STD == pytest.approx(math.sqrt(0.1))
    assert config["model"]["init_args"]["net"]["init_args"]["size"] == config["data"]["init_args"]["size"] == 100
    lr = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert FIGURE.scales["paper"].options == ["--replicas.lr", "[4e-5]"]
    assert lr == 4e-5


@pytest.mark.slow
def test_same_seeds_same_numbers(tmp_path: Path) -> None:
    found = []
    for number in range(2):
        runs = {}
        for arm in FIGURE.arms:
            short = ["--trainer.max_steps", "3000", "--data.test_size", "20", "--trainer.enable_progress_bar", "false"]
            seeds = ["--replicas.seeds", "2", "--run_dir", str(tmp_path / f"{number}" / arm.replace(" ", "_"))]
            quiet = ["--trainer.enable_model_summary", "false"]
            options = [*FIGURE.options("ci", arm), *short, *quiet, *seeds]
            runs[arm] = train(["fit", "--config", str(FIGURE.config_path(arm)), *options]).run_folder
        found.append(FIGURE.claims(runs))
    assert str(found[0]) == str(found[1])  # NaN is not itself
    assert found[0][0].n == 2
