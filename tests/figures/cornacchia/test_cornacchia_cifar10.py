"""ResNet-20 on CIFAR-10: claims and picture from handmade run folders, and one run of each arm."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from lnsgd.data import CIFAR10
from lnsgd.figures.cornacchia.cifar10 import CURVATURE, FIGURE
from lnsgd.figures.cornacchia.cifar10_runs import LINES, NOISY, PAPER_ACTIVE, SMOOTH, STANDARD, trace_by_stage
from lnsgd.figures.framework.configs import read_setting
from lnsgd.figures.framework.figure import Runs, Scale
from lnsgd.figures.framework.results import last_by_layer, measured, replicas
from lnsgd.figures.framework.runner import _folder_name, run_figure, seed_run
from lnsgd.measures.neurons.sites import activation_sites
from lnsgd.models import ResNet20
from lnsgd.runs.folder import RunFolder
from tests.data.cifar_files import write_binary
from tests.figures.handmade import handmade, within_bounds

SITES = [f"net.{name}" for name in activation_sites(ResNet20())]
STEPS = [0, 10, 20]

# Accuracy, percent of active units of the last site, and of the other sites of layer3 and of all before.
AS_PAPER = {STANDARD: (92.2, 46.9, 40.0, 50.0), SMOOTH: (92.4, 27.5, 30.0, 55.0), NOISY: (91.0, 20.0, 25.0, 45.0)}

# Variance within classes over that between them, and traces of two tensors of each stage.
CLUSTERS = {STANDARD: 0.5, SMOOTH: 0.2, NOISY: 0.6}
TRACES = {"conv1": 1.0, "bn1": 2.0, "layer1.0.conv1": 10.0, "layer2.0.conv1": 20.0, "layer3.0.bn1": 40.0, "linear": 5.0}

# Width, images (all where there is no number), held-out ones and epochs.
PAPER, CPU, CI = (16, None, 0, 200), (16, None, 0, 30), (4, 2000, 1000, 5)

Ends = Mapping[str, tuple[float, float, float, float]]


def run_of(
    folder: Path,
    ends: tuple[float, float, float, float],
    size: tuple[int, int | None, int, int],
    seeds: int,
    clusters: float,
) -> RunFolder:
    """Write a run whose curves have the given ends for the first seed, and slightly higher ends for the others."""
    accuracy, last, last_stage, before = ends

    def curve(start: float, end: float, spread: float) -> np.ndarray:
        return np.array([np.linspace(start, end + spread * seed, len(STEPS)) for seed in range(seeds)])

    active = {site: last_stage if ".layer3." in site else before for site in SITES} | {SITES[-1]: last}
    curvature = {
        ("hessian_trace", "train", ""): curve(100.0, sum(TRACES.values()), 0.0),
        **{("hessian_trace", "train", f"net.{name}.weight"): curve(9.0, of, 0.0) for name, of in TRACES.items()},
        ("top_eigenvalue_1", "train", ""): curve(30.0, 10.0, 0.0),
    }
    run = handmade(
        folder,
        STEPS,
        {
            **(curvature if size in (PAPER, CPU) else {}),
            ("class_variance_ratio", "train", ""): curve(9.0, clusters, 0.0),
            **{("active_fraction", "train", site): curve(0.5, at / 100, 0.0) for site, at in active.items()},
            ("error", "val", ""): curve(0.9, 1 - accuracy / 100, -0.002),
            ("error", "train", ""): curve(0.9, 0.001, 0.0),
            ("distance_from_init", "", ""): curve(0.0, 20.0, 1.0),
        },
    )
    width, subset, val_size, max_epochs = size
    settings = {
        "model": {"init_args": {"net": {"init_args": {"width": width}}}},
        "data": {"init_args": {"subset": subset, "val_size": val_size}},
        "trainer": {"max_epochs": max_epochs},
    }
    run.config.write_text(yaml.safe_dump(settings))
    run.finished.write_text(json.dumps({"seconds": 1.0, "steps": STEPS[-1], "epochs": max_epochs}))
    return run


def runs_of(folder: Path, changes: Ends | None = None, size: Any = PAPER, seeds: int = 2) -> Runs:
    ends = {**AS_PAPER, **(changes or {})}
    return {arm: run_of(folder / _folder_name(arm), ends[arm], size, seeds, CLUSTERS[arm]) for arm in FIGURE.arms}


def test_the_papers_numbers_hold(tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(tmp_path))
    assert [within_bounds(claim) for claim in claims] == [True] * 8
    assert [claim.n for claim in claims] == [2] * 8
    assert [claim.measured for claim in claims] == pytest.approx(
        [92.3, 92.5, 46.9, 27.5, 27.5 / 46.9, 27.5 / 46.9 / 0.75, 0.75, 0.4]
    )
    assert all("epoch 200" in claim.claim for claim in claims)
    assert ["test set" in claim.claim for claim in claims] == [True] * 2 + [False] * 6


BROKEN = {
    "accuracy-too-low": ({STANDARD: (91.2, 46.9, 40, 50)}, [0]),
    "accuracy-too-high": ({SMOOTH: (93.0, 27.5, 30, 55)}, [1]),
    "too-dense": ({STANDARD: (92.2, 57.0, 40, 50)}, [2]),
    "too-sparse": ({STANDARD: (92.2, 37.0, 40, 50)}, [2]),
    "smoothing-too-dense": ({SMOOTH: (92.4, 33.5, 30, 55)}, [3]),
    "smoothing-too-sparse": ({SMOOTH: (92.4, 21.5, 30, 55)}, [3]),
    "smoothing-is-no-sparser-at-the-last-site": ({SMOOTH: (92.4, 47.0, 30, 55)}, [3, 4, 5, 6]),
    "smoothing-is-no-sparser-at-another-site": ({SMOOTH: (92.4, 27.5, 40.1, 55)}, [6]),
    "diverged": ({SMOOTH: (float("nan"), 27.5, 30, 55)}, [1]),
    "the-other-arm": ({NOISY: (10, 90, 90, 90)}, []),
}


@pytest.mark.parametrize(("changes", "broken"), BROKEN.values(), ids=BROKEN)
def test_claims_that_do_not_hold(tmp_path: Path, changes: Ends, broken: list[int]) -> None:
    claims = FIGURE.claims(runs_of(tmp_path, changes))
    assert [index for index, claim in enumerate(claims) if not within_bounds(claim)] == broken


def test_one_site_of_one_seed_is_enough_to_fail(tmp_path: Path) -> None:
    """The largest ratio counts, not the mean over sites."""
    runs = runs_of(tmp_path, seeds=1)
    sparse, dense = (FIGURE.claims(runs)[-2], FIGURE.claims(runs_of(tmp_path / "dense", {SMOOTH: (92, 60, 1, 1)}))[-2])
    assert (within_bounds(sparse), within_bounds(dense)) == (True, False)
    assert dense.measured == pytest.approx(60 / 46.9)


LEARNS = {STANDARD: (22.0, 60, 60, 60), SMOOTH: (15.1, 60, 60, 60)}


def test_a_small_network_is_only_claimed_to_learn(tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(tmp_path, LEARNS, CI))
    assert [within_bounds(claim) for claim in claims] == [True, True]
    assert all("1,000 held-out images, epoch 5" in claim.claim for claim in claims)


def test_a_small_network_that_does_not_learn(tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(tmp_path, {**LEARNS, STANDARD: (14.0, 60, 60, 60)}, CI))
    assert [within_bounds(claim) for claim in claims] == [False, True]


def test_a_short_run_is_judged_by_ratios_not_by_the_papers_numbers(tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(tmp_path, {STANDARD: (85, 35, 40, 50), SMOOTH: (83, 34, 41, 50)}, CPU))
    assert [claim.id for claim in claims if not within_bounds(claim)] == [
        "same-accuracy",
        "last-ratio",
        "stage-sparser",
    ]
    near = FIGURE.claims(runs_of(tmp_path / "near", {STANDARD: (85, 50, 40, 50), SMOOTH: (86, 30, 30, 50)}, CPU))
    assert all(within_bounds(claim) for claim in near)


def test_clusters_are_compared_with_those_without_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLUSTERS, SMOOTH, 0.6)
    assert [claim.id for claim in FIGURE.claims(runs_of(tmp_path)) if not within_bounds(claim)] == [
        "smoothing-clusters"
    ]


def test_the_trace_of_a_stage_is_that_of_its_tensors(tmp_path: Path) -> None:
    stages = trace_by_stage(runs_of(tmp_path)[STANDARD])
    assert stages.loc[0].to_dict() == {"stem": 3, "layer1": 10, "layer2": 20, "layer3": 40, "output": 5}


@pytest.mark.parametrize("size", [PAPER, CI], ids=["paper", "ci"])
def test_draws_accuracy_over_epochs_and_sites_by_depth(tmp_path: Path, size: Any) -> None:
    picture = FIGURE.draw(runs_of(tmp_path, size=size))
    picture.savefig(tmp_path / "picture.png")
    accuracy, sites, *below = picture.axes
    assert len(below) == (4 if size == PAPER else 0)
    if below:
        ends = {axis.get_title(): axis.get_lines()[-1].get_ydata()[-1] for axis in below[:3]}  # p = 0 is drawn last
        assert list(ends.values()) == pytest.approx([sum(TRACES.values()), 10.0, CLUSTERS[STANDARD]])
        assert [bar.get_height() for bar in below[3].patches[:5]] == pytest.approx([3, 10, 20, 40, 5])
    lines = {line.get_label(): line.get_xydata() for line in accuracy.get_lines()}
    assert lines[SMOOTH][-1].tolist() == pytest.approx([size[3], 92.5])
    assert lines[STANDARD][0].tolist() == pytest.approx([0, 10])
    assert ("test set" in accuracy.get_title()) == (size == PAPER)
    means = {tuple(line.get_ydata()) for line in sites.get_lines() if len(line.get_xdata()) == len(SITES)}
    expected = {(*[before] * 13, *[stage] * 5, last) for _, last, stage, before in AS_PAPER.values()}
    assert {tuple(np.round(mean, 6)) for mean in means} == expected
    papers = [text.get_text() for text in accuracy.texts]
    assert papers == (["paper:\nslightly\nabove\n92 %"] if size == PAPER else [])
    stars = [line.get_xydata().tolist() for line in sites.get_lines() if line.get_marker() == "*"]
    assert stars == [[[len(SITES), number]] for number in PAPER_ACTIVE.values()]
    (legend,) = picture.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [STANDARD, SMOOTH, f"{NOISY} (not in the paper)"]
    assert list(LINES) == list(FIGURE.arms)
    named = {text.get_text() for text in sites.texts}
    assert {"stem", "layer1", "layer2", "layer3"} <= named
    assert any("fully\ntrained" in name for name in named) == (size == CI)


@pytest.mark.parametrize("seeds", [1, 2])
def test_table(tmp_path: Path, seeds: int) -> None:
    console = Console(record=True, width=120)
    runs = runs_of(tmp_path, seeds=seeds)
    console.print(FIGURE.comparison(runs))
    row = next(line for line in console.export_text().splitlines() if f" {SMOOTH} " in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    one = [SMOOTH, "92.40", "99.90", "27.5", "29.6", "20.0"]
    assert cells == (one if seeds == 1 else [SMOOTH, "92.50 ± 0.14", "99.90", "27.5 ± 0.0", "29.6 ± 0.0", "20.5"])


def test_table_of_curvature_and_clusters(tmp_path: Path) -> None:
    console = Console(record=True, width=120)
    console.print(FIGURE.table(runs_of(tmp_path, seeds=1)))
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in console.export_text().splitlines()]
    assert ["variance within / between", "0.5", "0.2", "0.6"] in rows
    assert ["of layer3", "40", "40", "40"] in rows
    assert ["largest eigenvalue", "10", "10", "10"] in rows


# --- trained for a moment ---


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Train the smallest scale on a few random images."""
    folder = tmp_path_factory.mktemp("short")
    draw = np.random.default_rng(0)
    names = (*CIFAR10.batches["train"], *CIFAR10.batches["test"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CIFAR10, "examples_per_file", 20)
        for name in names:
            pixels, labels = draw.integers(0, 256, (20, 3072), np.uint8), draw.integers(0, 10, 20).tolist()
            write_binary(folder / "cifar-10-batches-bin", name, pixels, labels)
        patch.setenv("LNSGD_DATA_DIR", str(folder))
        small = [
            *("--data.subset", "40", "--data.val_size", "20", "--trainer.max_epochs", "1"),
            *("--trainer.enable_progress_bar", "false"),
        ]
        shrunk = {"ci": Scale(seeds=1, options=[*FIGURE.scales["ci"].options, *small])}
        return run_figure(replace(FIGURE, scales=shrunk), "ci", 1, folder / "out", Console(quiet=True))


def test_arms_have_the_settings_of_their_names(short: Runs) -> None:
    noises = {arm: read_setting(run.config, "model.label_noise") for arm, run in short.items()}
    assert noises[STANDARD] is None
    assert noises[SMOOTH] == {"class_path": "lnsgd.label_noise.LabelSmoothing", "init_args": {"p": 0.1}}
    assert noises[NOISY] == {"class_path": "lnsgd.label_noise.UniformNoise", "init_args": {"p": 0.1}}


def test_runs_leave_what_the_figure_reads(short: Runs, tmp_path: Path) -> None:
    claims = FIGURE.claims(short)
    assert all(np.isfinite(claim.measured) for claim in claims)
    assert all("20 held-out images" in claim.claim for claim in claims)
    FIGURE.draw(short).savefig(tmp_path / "picture.png")
    FIGURE.table(short)
    for run in short.values():
        assert replicas(run)["seed"].tolist() == [0]
        assert list(last_by_layer(run, "active_fraction", "train")) == SITES
        assert list(last_by_layer(run, "active_fraction", "val")) == SITES
        assert measured(run, "error", "train").steps.tolist() == [0, 2]


def test_arms_share_initial_weights(short: Runs) -> None:
    begun = [seed_run(run, 0).init.read_bytes() for run in short.values()]
    assert begun[0] == begun[1] == begun[2]


def test_the_paper_scale_is_that_of_the_config() -> None:
    """Idelbayev's hyper-parameters are those of ``configs/cifar10_resnet20.yaml``; options only add measures."""
    assert FIGURE.scales["paper"].options == CURVATURE
    assert all(name.startswith("--trainer.callbacks") for name in CURVATURE if name.startswith("--"))
    shipped, own = (yaml.safe_load(path.read_text()) for path in (FIGURE.config_path(STANDARD), standalone("")))
    assert shipped["model"] == own["model"]
    assert shipped["data"] == own["data"]
    assert shipped["trainer"]["max_epochs"] == own["trainer"]["max_epochs"] == 200


@pytest.mark.parametrize(("suffix", "noise"), [("_smoothing", "LabelSmoothing"), ("_noise", "UniformNoise")])
def test_configs_of_the_other_arms_differ_only_in_noise(suffix: str, noise: str) -> None:
    changed, own = (yaml.safe_load(standalone(name).read_text()) for name in (suffix, ""))
    given = {"class_path": f"lnsgd.label_noise.{noise}", "init_args": {"p": 0.1}}
    assert changed["model"]["init_args"].pop("label_noise") == given
    assert changed == own


def standalone(suffix: str) -> Path:
    return Path(__file__).parents[3] / "configs" / f"cifar10_resnet20{suffix}.yaml"
