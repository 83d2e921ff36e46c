"""MNIST with label noise: claims, tables and picture from handmade run folders, and short runs."""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import save_file

from lnsgd.figures.cornacchia.mnist import (
    CLEAN,
    FIGURE,
    HIDDEN_CLEAN,
    HIDDEN_NOISY,
    LINES,
    NOISY,
    SMOOTH,
    SOFTMAX_CLEAN,
    SOFTMAX_NOISY,
    _drawn_of_active,
    _firings,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.results import epochs, measured
from lnsgd.figures.framework.runner import _folder_name
from lnsgd.runs.folder import RunFolder
from lnsgd.training.cli import train
from tests.figures.handmade import handmade, within_bounds

STEPS = [0, 10, 20, 30]

# Active neurons in percent, digit-associated ones and test error in percent at the end, as in the paper.
AS_PAPER = {
    CLEAN: (25.0, 104, 2.0),
    NOISY: (6.0, 222, 1.5),
    SMOOTH: (15.0, 310, 1.5),
    SOFTMAX_CLEAN: (32.0, 80, 2.0),
    SOFTMAX_NOISY: (8.0, 200, 1.5),
    HIDDEN_CLEAN: (30.0, 80, 2.0),
    HIDDEN_NOISY: (10.0, 200, 1.5),
}
AFTER = f"step {STEPS[-1]}"


def firings(associated: bool = True) -> torch.Tensor:
    """Return the firings of 40 neurons. The third never fires; all or none of the others belong to digit 4."""
    counts = torch.full((10, 40), 10, dtype=torch.int64)
    counts[4] += 10 * associated
    counts[:, 2] = 0
    return counts


def run_of(folder: Path, active: float, associated: float, error: float, seeds: int = 2) -> RunFolder:
    """Write a run whose curves have the given ends for the first seed, and slightly higher ends for the others."""

    def falling(start: float, end: float, spread: float) -> np.ndarray:
        return np.array([np.linspace(start, end + spread * seed, len(STEPS)) for seed in range(seeds)])

    run = handmade(
        folder,
        STEPS,
        {
            ("active_fraction", "train", "net.activations.0"): falling(0.5, active / 100, 0.0),
            ("associated_count", "train", "net.activations.0"): falling(3, associated, 2.0),
            ("error", "test", ""): falling(0.9, error / 100, 0.0002),
            ("error", "train", ""): falling(0.9, 0.0, 0.001),
            ("distance_from_init", "", ""): falling(0.0, 20.0, 1.0),
        },
    )
    run.finished.write_text(json.dumps({"seconds": 1.0, "steps": STEPS[-1], "epochs": 3}))
    save_file({f"replica{r}/net.activations.0": firings(r == 0) for r in range(seeds)}, run.firings)
    return run


def runs_of(folder: Path, changes: Mapping[str, tuple[float, float, float]] | None = None, seeds: int = 2) -> Runs:
    ends = {**AS_PAPER, **(changes or {})}
    return {arm: run_of(folder / _folder_name(arm), *ends[arm], seeds) for arm in FIGURE.arms}


def test_the_papers_numbers_hold(tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path))
    assert [within_bounds(claim) for claim in claims] == [True] * 16
    assert [claim.n for claim in claims] == [2] * 16
    assert [claim.measured for claim in claims[:4]] == pytest.approx([25, 6, 105, 223])
    assert claims[4].measured == pytest.approx(6 / 25)
    assert claims[5].measured == pytest.approx(118)
    assert claims[6].measured == pytest.approx(-0.5)
    assert [claim.measured for claim in claims[12:]] == pytest.approx([15 / 25, 311 / 600, 50, 25])
    assert [AFTER in claim.claim for claim in claims] == [True] * 14 + [False, True]


def test_comparisons_are_paired_by_seed(tmp_path):
    """Both arms vary over seeds in the same way, so that their difference does not vary."""
    claims = FIGURE.claims(runs_of(tmp_path))
    assert claims[2].std == pytest.approx(2 / np.sqrt(2))
    assert claims[5].std == pytest.approx(0)
    assert claims[6].std == pytest.approx(0, abs=1e-9)


BROKEN = {
    "clean-too-dense": ({CLEAN: (30.5, 104, 2)}, [0, 15]),
    "clean-too-sparse": ({CLEAN: (19.5, 104, 2)}, [0, 15]),
    "noisy-too-dense": ({NOISY: (7.3, 222, 1.5)}, [1]),
    "clean-associated": ({CLEAN: (25, 124, 2)}, [2]),
    "noisy-associated": ({NOISY: (6, 270, 1.5)}, [3]),
    "not-halved": ({CLEAN: (25, 104, 2), NOISY: (12.6, 222, 1.5)}, [1, 4, 9]),
    "fewer-associated": ({NOISY: (6, 104, 1.5)}, [3, 5]),
    "same-test-error": ({NOISY: (6, 222, 2)}, [6]),
    "higher-test-error": ({NOISY: (6, 222, 2.2)}, [6]),
    "smoothing-sparser": ({SMOOTH: (5.9, 310, 1.5)}, [7]),
    "softmax-sparser": ({SOFTMAX_CLEAN: (24.9, 80, 2)}, [8]),
    "softmax-with-noise-sparser": ({SOFTMAX_NOISY: (5.9, 200, 1.5)}, [9]),
    "one-layer-not-halved": ({HIDDEN_NOISY: (15.1, 200, 1.5)}, [10]),
    "one-layer-fewer-associated": ({HIDDEN_NOISY: (10, 80, 1.5)}, [11]),
    "smoothing-not-sparser": ({SMOOTH: (25.1, 310, 1.5)}, [12]),
    "smoothing-few-associated": ({SMOOTH: (15, 290, 1.5)}, [13]),
    "diverged": ({SMOOTH: (float("nan"), 310, 1.5)}, [7, 12]),
}


@pytest.mark.parametrize(("changes", "broken"), BROKEN.values(), ids=BROKEN)
def test_claims_that_do_not_hold(tmp_path, changes, broken):
    claims = FIGURE.claims(runs_of(tmp_path, changes))
    assert [index for index, claim in enumerate(claims) if not within_bounds(claim)] == broken


def test_epochs(tmp_path):
    run = run_of(tmp_path / "run", *AS_PAPER[CLEAN])
    assert epochs(run, measured(run, "error", "test").steps).tolist() == [0, 1, 2, 3]


def test_firings_are_of_the_first_seed_without_silent_neurons(tmp_path):
    run = run_of(tmp_path / "run", *AS_PAPER[CLEAN])
    assert torch.equal(_firings(run), firings(associated=True))
    silent = firings()
    silent[:, 0] = 0
    assert _drawn_of_active([firings(), silent], 40) == [1, *range(3, 40)]
    few, of_many = (_drawn_of_active([torch.ones(10, units)], 6) for units in (6, 600))
    assert few == [*range(6)]
    assert len({*of_many}) == 6 and max(of_many) > 100  # anywhere among them


def test_draws_curves_of_every_arm_and_neurons_of_the_main_ones(tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(tmp_path / "picture.png")
    curves, histograms = picture.subfigs
    (legend,) = curves.legends
    assert [text.get_text() for text in legend.get_texts()] == list(FIGURE.arms) == list(LINES)
    active, error = curves.axes
    lines = {line.get_label(): line for line in active.get_lines()}
    assert lines[NOISY].get_xydata().tolist()[-1] == pytest.approx([3, 6])
    assert all(line.get_xdata().tolist() == [1, 2, 3] for line in error.get_lines())
    main = [lines[arm].get_linewidth() for arm in (CLEAN, NOISY)]
    assert min(main) > max(line.get_linewidth() for arm, line in lines.items() if arm not in (CLEAN, NOISY))
    for part, arm in zip(histograms.subfigs, (CLEAN, NOISY)):
        assert f"{arm}: {AS_PAPER[arm][1] + 1} ± 1 of 600" in part.get_suptitle()
        assert len(part.axes) == 30
        red = matplotlib.colors.to_rgba("tab:red")
        assert all([bar.get_facecolor() == red for bar in axis.patches].index(True) == 4 for axis in part.axes)


def test_draws_one_seed_and_networks_with_few_active_neurons(tmp_path):
    runs = runs_of(tmp_path, seeds=1)
    few = firings()
    few[:, 3:] = 0
    save_file({"replica0/net.activations.0": few}, runs[NOISY].firings)
    picture = FIGURE.draw(runs)
    picture.savefig(tmp_path / "picture.png")
    assert picture.subfigs[0].legends[0].get_title().get_text() == ""
    for part in picture.subfigs[1].subfigs:
        assert [axis.axison for axis in part.axes] == [True] * 2 + [False] * 28


@pytest.mark.parametrize("seeds", [1, 2])
def test_table(tmp_path, seeds):
    console = Console(record=True, width=120)
    console.print(FIGURE.table(runs_of(tmp_path, seeds=seeds)))
    row = next(line for line in console.export_text().splitlines() if f" {NOISY} " in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    one = [NOISY, "1.50", "0.000", "6.0", "222", "20.0"]
    assert cells == (one if seeds == 1 else [NOISY, "1.51 ± 0.01", "0.050", "6.0 ± 0.0", "223 ± 1", "20.5"])


QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SHORT = [*("--data.source", "sample", "--data.subset", "60", "--trainer.max_epochs", "2"), *QUIET]


def trained(folder: Path, arm: str, *changes: str) -> RunFolder:
    """Train one seed of an arm at the smallest scale for a few steps."""
    run = RunFolder(folder / _folder_name(arm))
    options = [*FIGURE.options("ci", arm), *SHORT, "--run_dir", str(run.path), "--replicas.seeds", "1", *changes]
    train(["fit", "--config", str(FIGURE.config_path(arm)), *options])
    return run


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("short")
    return {arm: trained(folder, arm) for arm in FIGURE.arms}


def test_arms_have_the_settings_of_their_names(short):
    settings = {}
    for arm, run in short.items():
        model = yaml.safe_load(run.config.read_text())["model"]["init_args"]
        net, noise = model["net"]["init_args"], model["label_noise"]
        settings[arm] = (
            model["loss"]["class_path"].rpartition(".")[2],
            noise["class_path"].rpartition(".")[2],
            noise["init_args"]["p"],
            net["train_layers"],
            net["init"] and net["init"]["init_args"]["bound"],
        )
    assert settings == {
        CLEAN: ("LogisticLoss", "UniformNoise", 0, None, None),
        NOISY: ("LogisticLoss", "UniformNoise", 0.1, None, None),
        SMOOTH: ("LogisticLoss", "LabelSmoothing", 0.1, None, None),
        SOFTMAX_CLEAN: ("CrossEntropy", "UniformNoise", 0, None, None),
        SOFTMAX_NOISY: ("CrossEntropy", "UniformNoise", 0.1, None, None),
        HIDDEN_CLEAN: ("LogisticLoss", "UniformNoise", 0, [0], 0.25),
        HIDDEN_NOISY: ("LogisticLoss", "UniformNoise", 0.1, [0], 0.25),
    }


def test_runs_leave_what_the_figure_reads(short, tmp_path):
    claims = FIGURE.claims(short)
    assert all(np.isfinite(claim.measured) for claim in claims)
    FIGURE.draw(short).savefig(tmp_path / "picture.png")
    pages = {arm: sorted(path.name for path in run.figures.glob("*.png")) for arm, run in short.items()}
    assert pages == {
        arm: ["firing_histograms_replica0_net.activations.0.png"] if arm in (CLEAN, NOISY) else [] for arm in pages
    }


def test_last_numbers_are_those_of_all_examples(tmp_path):
    """These are more examples than the measurements of every epoch use."""
    run = trained(tmp_path, CLEAN, "--data.subset", "2500", "--trainer.max_steps", "5")
    active = measured(run, "active_fraction", "train")
    assert active.steps.tolist() == [0, 5]
    assert active.last[0] == pytest.approx(_firings(run).sum().item() / (2500 * 600), rel=1e-12)


def test_same_seeds_same_claims(short, tmp_path):
    again = {arm: trained(tmp_path, arm) for arm in (CLEAN, NOISY)}
    assert FIGURE.claims({**short, **again}) == FIGURE.claims(short)
