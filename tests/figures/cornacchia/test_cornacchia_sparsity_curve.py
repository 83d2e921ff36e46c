"""The sparsity curve a(p): reading of a run with many noise levels, claims, tables and picture."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from lnsgd.figures.cornacchia.sparsity_curve import FIGURE, HYPERCUBE, MNIST, UNITS, sparsity_curve
from lnsgd.figures.framework.claims import Claim
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.results import by_setting
from lnsgd.runs.folder import RunFolder
from lnsgd.training.cli import train
from tests.figures.handmade import handmade, within_bounds

NOISE = [0.0, 0.2, 0.6, 1.0]

# Of two seeds, a row each. The mean training error is within 1 % at p = 0 and 0.2.
ACTIVE = [[100.0, 40, 20, 5], [120, 50, 25, 6]]
TRAIN = [[0.0, 0.012, 0.02, 0.5], [0.0, 0.008, 0.01, 0.5]]
TEST = [[0.3, 0.2, 0.25, 0.5], [0.32, 0.18, 0.25, 0.5]]
Rows = Sequence[Sequence[float]]


def ended(folder: Path, active: Rows = ACTIVE, train_error: Rows = TRAIN, test_error: Rows = TEST) -> RunFolder:
    """Write a run that was measured at its start and end, with replicas in the order of `ReplicaGrid`."""

    def curves(rows: Rows) -> np.ndarray:
        last = np.array(rows).T.ravel()
        return np.stack([np.full_like(last, 0.9), last], 1)

    settings = [{"seed": seed, "noise": noise} for noise in NOISE for seed in range(len(active))]
    numbers = {
        ("error", "train", ""): curves(train_error),
        ("error", "test", ""): curves(test_error),
        ("active_count", "train", "net.activations.0"): curves(active),
    }
    return handmade(folder, [0, 1000], numbers, settings)


def both(folder: Path, **tables: Rows) -> Runs:
    return {arm: ended(folder / arm, **tables) for arm in FIGURE.arms}


def of_arm(claims: Sequence[Claim], arm: str) -> list[Claim]:
    return [claim for claim in claims if claim.claim.startswith(arm)]


def test_replicas_by_a_setting(tmp_path: Path) -> None:
    settings = [{"seed": seed, "noise": noise} for noise in (0.5, 0.0) for seed in (4, 3)]
    run = handmade(tmp_path / "run", [0], {("x", "", ""): np.zeros((4, 1))}, settings)
    levels, values = by_setting(run, "noise", np.array([1.0, 2.0, 3.0, 4.0]))
    assert levels.tolist() == [0.0, 0.5]
    assert values.tolist() == [[4.0, 2.0], [3.0, 1.0]]  # seeds 3 and 4


def test_reads_the_end_of_each_seed_and_level(tmp_path: Path) -> None:
    curve = sparsity_curve(ended(tmp_path / "run"))
    assert curve.noise.tolist() == NOISE
    np.testing.assert_array_equal(curve.active, ACTIVE)
    np.testing.assert_allclose(curve.train_error, 100 * np.array(TRAIN))
    np.testing.assert_allclose(curve.test_error, 100 * np.array(TEST))


SPARSEST = {
    "mean-over-seeds-fits": (ACTIVE, TRAIN, 1),
    "nothing-fits": (ACTIVE, np.full((2, 4), 0.02), None),
    "everything-fits": (ACTIVE, np.zeros((2, 4)), 3),
    "only-the-first": (ACTIVE, [[0.0, 0.1, 0.1, 0.1]] * 2, 0),
    "fewest-neurons-not-most-noise": ([[100.0, 20, 40, 5]] * 2, [[0.0, 0.0, 0.0, 0.5]] * 2, 1),
}


@pytest.mark.parametrize(("active", "train_error", "level"), SPARSEST.values(), ids=SPARSEST)
def test_the_sparsest_that_fits(tmp_path: Path, active: Rows, train_error: Rows, level: int | None) -> None:
    assert sparsity_curve(ended(tmp_path / "run", active, train_error)).sparsest == level


def test_claims_are_paired_by_seed_and_name_their_noise_level(tmp_path: Path) -> None:
    claims = FIGURE.claims(both(tmp_path))
    assert len(claims) == 6
    for arm in (HYPERCUBE, MNIST):
        pure, half, error = of_arm(claims, arm)
        assert pure.measured == pytest.approx((5 / 100 + 6 / 120) / 2)
        assert half.measured == pytest.approx((40 / 100 + 50 / 120) / 2)
        assert "p = 0.2" in half.claim
        assert error.measured == pytest.approx((20 - 30 + 18 - 32) / 2)
        assert [claim.n for claim in (pure, half, error)] == [2] * 3
        assert all(within_bounds(claim) for claim in (pure, half, error))


FAILING = {
    "pure-noise-leaves-too-many": ({"active": [[100.0, 40, 20, 15]] * 2}, [False, True, True]),
    "not-halved": ({"active": [[100.0, 60, 55, 5]] * 2}, [True, False, True]),
    "higher-test-error": ({"test_error": [[0.1, 0.2, 0.25, 0.5]] * 2}, [True, True, False]),
    "only-clean-fits": ({"train_error": [[0.0, 0.1, 0.1, 0.1]] * 2}, [True, False, False]),
    "nothing-fits": ({"train_error": [[0.1] * 4] * 2}, [True, False, False]),
}


@pytest.mark.parametrize(("tables", "holds"), FAILING.values(), ids=FAILING)
def test_each_claim_can_fail(tmp_path: Path, tables: dict[str, Rows], holds: list[bool]) -> None:
    claims = FIGURE.claims(both(tmp_path, **tables))
    for arm in (HYPERCUBE, MNIST):
        assert [within_bounds(claim) for claim in of_arm(claims, arm)] == holds


@pytest.mark.parametrize("train_error", [TRAIN, [[0.1] * 4] * 2], ids=["some-fit", "none-fits"])
def test_draws_and_tabulates(tmp_path: Path, train_error: Rows) -> None:
    runs = both(tmp_path, train_error=train_error)
    picture = FIGURE.draw(runs)
    picture.savefig(io.BytesIO(), format="png")
    active = picture.axes[0].lines[0]
    assert active.get_xdata().tolist() == NOISE
    assert active.get_ydata().tolist() == [110, 45, 22.5, 5.5]
    console = Console(record=True, width=120, file=io.StringIO())
    assert FIGURE.table is not None
    console.print(FIGURE.table(runs))
    printed = console.export_text()
    assert printed.count("sparsest that fits") == (2 if train_error is TRAIN else 0)
    assert "110.0" in printed


def test_draws_one_seed(tmp_path: Path) -> None:
    runs = both(tmp_path, active=ACTIVE[:1], train_error=TRAIN[:1], test_error=TEST[:1])
    FIGURE.draw(runs).savefig(io.BytesIO(), format="png")
    assert all(claim.std is None for claim in FIGURE.claims(runs))


@pytest.mark.parametrize("arm", FIGURE.arms)
def test_configs_go_from_no_noise_to_pure_noise_in_tenths(arm: str) -> None:
    config = yaml.safe_load(FIGURE.config_path(arm).read_text())
    assert config["replicas"]["noise"] == pytest.approx(np.linspace(0, 1, 11))
    assert config["model"]["init_args"]["net"]["init_args"]["widths"][1] == UNITS[arm]


@pytest.mark.slow
def test_same_seeds_same_numbers(tmp_path: Path) -> None:
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    grid = ["--replicas.seeds", "2", "--replicas.noise", "[0.0,1.0]"]
    short = {
        HYPERCUBE: ["--trainer.max_steps", "300", "--data.test_size", "50"],
        MNIST: ["--data.source", "sample", "--data.subset", "20", "--trainer.max_epochs", "2"],
    }
    found = []
    for number in range(2):
        runs = {}
        for arm, options in short.items():
            folder = ["--run_dir", str(tmp_path / f"{number}-{arm}")]
            cli = train(["fit", "--config", str(FIGURE.config_path(arm)), *options, *grid, *quiet, *folder])
            assert cli.run_folder is not None
            runs[arm] = cli.run_folder
        found.append(FIGURE.claims(runs))
    assert str(found[0]) == str(found[1])  # NaN is not itself
    assert found[0][0].n == 2
