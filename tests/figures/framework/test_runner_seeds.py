"""Arms whose seeds are trained one after the other: each can be resumed, and together they read as replicas."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import lnsgd.training.cli
from lnsgd.figures.framework.configs import read_setting
from lnsgd.figures.framework.figure import Figure, Scale
from lnsgd.figures.framework.results import epochs, measured, replicas
from lnsgd.figures.framework.runner import run_figure, seed_run, unite
from lnsgd.records.provenance import read_provenance
from lnsgd.runs.folder import RunFolder
from tests.figures import tiny

SEEDS = ["seed-0", "seed-1"]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the command lines of all trainings that are started."""
    started: list[list[str]] = []
    train = lnsgd.training.cli.train

    def counted(args: list[str]) -> Any:
        started.append(args)
        return train(args)

    monkeypatch.setattr(lnsgd.training.cli, "train", counted)
    return started


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    return tiny.figure_seed_by_seed(tmp_path_factory.mktemp("figure"))


@pytest.fixture(scope="module")
def done(figure: Figure, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a figure's folder by a complete call; tests do not change it."""
    out = tmp_path_factory.mktemp("done") / "out"
    tiny.run(figure, out)
    yield out


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """Copy the folder, with a second arm that is not finished."""
    shutil.copytree(done, tmp_path / "out")
    second_arm(tmp_path / "out").finished.unlink()
    return tmp_path / "out"


def second_arm(out: Path) -> RunFolder:
    return RunFolder(out / tiny.FOLDERS[1])


def given(args: list[str], option: str) -> str:
    return args[args.index(option) + 1]


def assert_ends_like(run: RunFolder, other: RunFolder) -> None:
    one, two = (torch.load(r.last_checkpoint, weights_only=False)["state_dict"] for r in (run, other))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def assert_united_alike(run: RunFolder, other: RunFolder) -> None:
    pd.testing.assert_frame_equal(pd.read_parquet(run.measures), pd.read_parquet(other.measures), check_exact=True)
    assert run.replicas.read_text() == other.replicas.read_text()


def test_every_seed_of_every_arm_is_a_run_of_its_own(
    figure: Figure, tmp_path: Path, trainings: list[list[str]]
) -> None:
    tiny.run(figure, tmp_path)
    folders = [str(tmp_path / arm / seed) for arm in tiny.FOLDERS for seed in SEEDS]
    assert [given(args, "--run_dir") for args in trainings] == folders
    assert [given(args, "--seed_everything") for args in trainings] == ["0", "1"] * 2
    assert not any("--replicas.seeds" in args for args in trainings)


def test_the_united_table_has_the_rows_of_the_seeds(done: Path) -> None:
    for arm in map(RunFolder, (done / name for name in tiny.FOLDERS)):
        united = pd.read_parquet(arm.measures)
        assert sorted(united["replica"].unique()) == [0, 1]
        for seed, name in enumerate(SEEDS):
            mine = united[united["replica"] == seed].reset_index(drop=True).assign(replica=0)
            part = pd.read_parquet(RunFolder(arm.path / name).measures)
            pd.testing.assert_frame_equal(mine, part, check_exact=True, check_dtype=False)
        assert united.dtypes.to_dict() == part.dtypes.to_dict()


def test_results_read_the_arm_as_a_replicated_run(done: Path) -> None:
    arm = second_arm(done)
    assert replicas(arm)["seed"].tolist() == [0, 1]
    assert replicas(arm)["diverged_at"].isna().all()
    curves = measured(arm, "active_count", "train")
    assert (curves.steps.tolist(), curves.values.shape) == (tiny.STEPS, (2, 5))
    assert epochs(arm, curves.steps).tolist() == [0, 0.5, 1, 1.5, 2]
    parts = [read_provenance(RunFolder(arm.path / name).finished, ["seconds"]).seconds for name in SEEDS]
    assert read_provenance(arm.finished, ["seconds"]).seconds == pytest.approx(sum(parts), abs=0.05)
    dates = [json.loads(RunFolder(arm.path / name).finished.read_text())["ended"] for name in SEEDS]
    assert json.loads(arm.finished.read_text())["ended"] == max(dates)
    assert read_setting(arm.config, "model.label_noise.p") == 0.5
    assert arm.config.read_text() == RunFolder(arm.path / SEEDS[0]).config.read_text()


def test_seeds_agree_with_those_of_replicas(done: Path, tmp_path: Path) -> None:
    """Compare with an independent way to the same runs: all seeds in one program."""
    together = tiny.run(tiny.figure(tmp_path), tmp_path / "out")
    for arm, name in zip(tiny.ARMS, tiny.FOLDERS):
        initial = load_file(together[arm].init)["stack.net.layers.0.weight"]
        for seed in (0, 1):
            alone = load_file(RunFolder(done / name / SEEDS[seed]).init)["net.layers.0.weight"]
            assert torch.equal(initial[seed], alone)
        one, other = (measured(run, "active_count", "train").values for run in (together[arm], RunFolder(done / name)))
        np.testing.assert_allclose(one, other, atol=0.1)  # sums are rounded in another order; seeds differ by more
        assert abs(one[0] - one[1]).max() > 0.3


# --- resuming ---


def test_nothing_is_trained_twice(figure: Figure, done: Path, trainings: list[list[str]]) -> None:
    tiny.run(figure, done)
    assert trainings == []


def test_after_the_last_seed_only_uniting_is_left(
    figure: Figure, done: Path, copy: Path, trainings: list[list[str]]
) -> None:
    second_arm(copy).measures.unlink()
    tiny.run(figure, copy)
    assert trainings == []
    assert second_arm(copy).finished.read_text() == second_arm(done).finished.read_text()
    assert_united_alike(second_arm(copy), second_arm(done))


def test_only_the_missing_seed_is_trained(figure: Figure, done: Path, copy: Path, trainings: list[list[str]]) -> None:
    shutil.rmtree(second_arm(copy).path / SEEDS[1])
    tiny.run(figure, copy)
    assert [given(args, "--run_dir") for args in trainings] == [str(second_arm(copy).path / SEEDS[1])]
    assert_united_alike(second_arm(copy), second_arm(done))


def test_a_resumed_seed_ends_like_an_uninterrupted_one(
    figure: Figure, done: Path, tmp_path: Path, trainings: list[list[str]]
) -> None:
    """All runs have finished their first epoch only, as if the arms had been killed then."""
    half = replace(figure, scales={"ci": Scale(seeds=2, options=["--trainer.max_epochs", "1"])})
    tiny.run(half, tmp_path)
    (tmp_path / "settings.json").unlink()
    for folder in (tmp_path / arm / part for arm in tiny.FOLDERS for part in ("", *SEEDS)):
        RunFolder(folder).finished.unlink()
    trainings.clear()
    begun = {init: init.stat().st_mtime_ns for init in tmp_path.rglob("init.safetensors")}
    runs = tiny.run(figure, tmp_path)
    assert len(trainings) == len(begun) == 4
    assert {init: init.stat().st_mtime_ns for init in begun} == begun  # none was started again
    for run, name in zip(runs.values(), tiny.FOLDERS):
        for seed in SEEDS:
            assert_ends_like(RunFolder(run.path / seed), RunFolder(done / name / seed))
        assert_united_alike(run, RunFolder(done / name))


def test_a_seed_without_a_checkpoint_starts_again(figure: Figure, done: Path, copy: Path) -> None:
    victim = RunFolder(second_arm(copy).path / SEEDS[0])
    victim.finished.unlink()
    shutil.rmtree(victim.checkpoints)
    tiny.run(figure, copy)
    assert_ends_like(victim, RunFolder(second_arm(done).path / SEEDS[0]))
    assert_united_alike(second_arm(copy), second_arm(done))


def test_progress_is_printed_for_every_seed(figure: Figure, copy: Path) -> None:
    shutil.rmtree(second_arm(copy).path / SEEDS[1])
    RunFolder(second_arm(copy).path / SEEDS[0]).finished.unlink()
    told = io.StringIO()
    run_figure(figure, "ci", 2, copy, Console(file=told, width=200))
    assert told.getvalue().splitlines() == [
        "tiny 1/2: p = 0, 2 seeds (finished before)",
        "tiny 2/2: p = 0.5, 2 seeds (training and measuring)",
        "  seed 0, 1 of 2 (resuming)",
        "  seed 1, 2 of 2 (training)",
    ]


# --- uniting ---


def test_runs_of_different_length_are_refused(copy: Path) -> None:
    arm = second_arm(copy)
    for path in (arm.measures, arm.replicas, arm.config):
        path.unlink()
    parts = [seed_run(arm, seed) for seed in (0, 1)]
    parts[1].finished.write_text(json.dumps({**json.loads(parts[1].finished.read_text()), "steps": 47}))
    with pytest.raises(ValueError, match=r"different numbers of steps: 48 \(seed-0\), 47 \(seed-1\); delete those"):
        unite(arm, parts)
    assert sorted(path.name for path in arm.path.iterdir()) == SEEDS


def test_every_device_is_named(copy: Path) -> None:
    arm = second_arm(copy)
    parts = [seed_run(arm, seed) for seed in (0, 1)]
    for part, device in zip(parts, ("abacus", "slide rule")):
        part.finished.write_text(json.dumps({**json.loads(part.finished.read_text()), "device": device}))
    unite(arm, parts)
    assert json.loads(arm.finished.read_text())["device"] == "abacus, slide rule"
    unite(arm, [parts[0], parts[0]])
    assert json.loads(arm.finished.read_text())["device"] == "abacus"
