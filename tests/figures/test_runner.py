"""Running the arms of a figure: once each, on from where it stopped, and never over other settings."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.figure
import pandas as pd
import pytest
import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor

import lnsgd.training
from lnsgd.cli import main
from lnsgd.figures import command
from lnsgd.figures.claims import judge
from lnsgd.figures.figure import Figure
from lnsgd.figures.runner import run_figure
from lnsgd.run_folder import RunFolder

ARMS = {"p = 0": ["--model.label_noise.p", "0"], "p = 0.5": ["--model.label_noise.p", "0.5"]}
FOLDERS = ["p_0/seed-0", "p_0.5/seed-0", "p_0/seed-1", "p_0.5/seed-1"]

# Three steps an epoch, two epochs, no measures.
TINY = [
    *(
        "--data.source",
        "sample",
        "--data.subset",
        "96",
        "--data.batch_size",
        "32",
        "--model.net.widths",
        "[784, 8, 10]",
    ),
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--trainer.limit_val_batches", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.callbacks", "null"),
]

FIGURE = Figure(
    name="tiny",
    title="Nothing much",
    config="mnist.yaml",
    scales={"tiny": TINY, "other": [*TINY, "--model.optimizer.lr", "0.2"]},
    arms=ARMS,
    table=lambda runs: Table(f"table of {len(runs)} arms"),
    claims=lambda runs: [judge("always", source="Fig. 0", paper=1.0, measured=[len(r) for r in runs.values()])],
    draw=lambda runs: matplotlib.figure.Figure(),
)


def run(out: Path, scale: str = "tiny", seeds: int = 2, figure: Figure = FIGURE) -> dict[str, list[RunFolder]]:
    return run_figure(figure, scale, seeds, out, Console(file=io.StringIO()))


def weights(run_folder: RunFolder) -> dict[str, Tensor]:
    return torch.load(run_folder.last_checkpoint, weights_only=False)["state_dict"]


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command line of every training that is started."""
    started: list[list[str]] = []
    train = lnsgd.training.train

    def counted(args: list[str]) -> Any:
        started.append(args)
        return train(args)

    monkeypatch.setattr(lnsgd.training, "train", counted)
    return started


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A figure's folder after a complete call; tests leave it as it is."""
    out = tmp_path_factory.mktemp("done") / "out"
    run(out)
    yield out


def interrupted(done: Path, tmp_path: Path) -> RunFolder:
    """A copy of the complete folder in which the second of four runs is not finished."""
    shutil.copytree(done, tmp_path / "out")
    victim = RunFolder(tmp_path / "out" / FOLDERS[1])
    victim.finished.unlink()
    return victim


def test_every_arm_is_trained_once_with_every_seed(tmp_path: Path, trainings: list[list[str]]) -> None:
    runs = run(tmp_path, seeds=2)
    assert [args[args.index("--run_dir") + 1] for args in trainings] == [str(tmp_path / name) for name in FOLDERS]
    assert {arm: [folder.path.name for folder in folders] for arm, folders in runs.items()} == {
        arm: ["seed-0", "seed-1"] for arm in ARMS
    }


def test_runs_have_the_settings_of_arm_scale_and_seed(done: Path) -> None:
    for name in FOLDERS:
        config = yaml.safe_load(RunFolder(done / name).config.read_text())
        assert config["seed_everything"] == int(name[-1])
        assert config["model"]["init_args"]["label_noise"]["init_args"]["p"] == (0.5 if name.startswith("p_0.5") else 0)
        assert config["data"]["init_args"]["subset"] == 96
        assert json.loads(RunFolder(done / name).finished.read_text())["steps"] == 6


def test_arms_share_their_initial_weights(done: Path) -> None:
    inits = [RunFolder(done / name).init.read_bytes() for name in FOLDERS]
    assert inits[0] == inits[1]
    assert inits[2] == inits[3]
    assert inits[0] != inits[2]


def test_nothing_is_trained_twice(done: Path, trainings: list[list[str]]) -> None:
    runs = run(done)
    assert trainings == []
    assert [folder.finished.exists() for folders in runs.values() for folder in folders] == [True] * 4


def test_more_seeds_train_only_what_is_missing(done: Path, tmp_path: Path, trainings: list[list[str]]) -> None:
    interrupted(done, tmp_path).finished.touch()
    run(tmp_path / "out", seeds=3)
    assert [args[args.index("--seed_everything") + 1] for args in trainings] == ["2", "2"]


def test_a_run_without_its_end_goes_on(done: Path, tmp_path: Path, trainings: list[list[str]]) -> None:
    victim = interrupted(done, tmp_path)
    run(tmp_path / "out")
    assert len(trainings) == 1
    assert trainings[0][-2:] == ["--ckpt_path", "last"]
    assert victim.finished.exists()
    assert_same_weights(weights(victim), weights(RunFolder(done / FOLDERS[1])))


def test_a_run_stopped_in_the_middle_ends_like_one_that_was_not(done: Path, tmp_path: Path) -> None:
    """The run has come as far as its first epoch, as if it had been killed in the second."""
    run(tmp_path, scale="half", figure=replace(FIGURE, scales={"half": [*TINY, "--trainer.max_epochs", "1"]}))
    (tmp_path / "settings.json").unlink()
    for name in FOLDERS:
        RunFolder(tmp_path / name).finished.unlink()
    run(tmp_path)
    for name in FOLDERS:
        assert_same_weights(weights(RunFolder(tmp_path / name)), weights(RunFolder(done / name)))
        there, here = (pd.read_csv(RunFolder(out / name).metrics) for out in (done, tmp_path))
        pd.testing.assert_frame_equal(here, there, check_exact=True)


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    done: Path, tmp_path: Path, trainings: list[list[str]]
) -> None:
    victim = interrupted(done, tmp_path)
    shutil.rmtree(victim.checkpoints)
    run(tmp_path / "out")
    assert len(trainings) == 1
    assert "--ckpt_path" not in trainings[0]
    assert_same_weights(weights(victim), weights(RunFolder(done / FOLDERS[1])))


OTHERS = {
    "scale": (FIGURE, "other"),
    "arm": (replace(FIGURE, arms={**ARMS, "p = 1": ["--model.label_noise.p", "1"]}), "tiny"),
    "options-of-the-scale": (replace(FIGURE, scales={"tiny": [*TINY, "--data.batch_size", "16"]}), "tiny"),
    "figure": (replace(FIGURE, name="another"), "tiny"),
    "config": (replace(FIGURE, config="figures/mnist-sparsity.yaml"), "tiny"),
}


@pytest.mark.parametrize(("figure", "scale"), OTHERS.values(), ids=OTHERS)
def test_other_settings_are_refused(done: Path, trainings: list[list[str]], figure: Figure, scale: str) -> None:
    before = (done / "settings.json").read_bytes()
    with pytest.raises(ValueError, match="holds runs with other settings"):
        run(done, scale, figure=figure)
    assert trainings == []
    assert (done / "settings.json").read_bytes() == before


def test_command_prints_and_leaves_table_claims_and_figure(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.FIGURES, "tiny", FIGURE)
    main(["reproduce", "tiny", "--seeds", "2", "--out", str(done)])
    printed = capsys.readouterr().out
    assert "table of 2 arms" in printed
    assert "always" in printed
    (claim,) = json.loads((done / "claims.json").read_text())
    assert (claim["measured"], claim["n"], claim["holds"]) == (2.0, 2, True)
    assert (done / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_list_prints_every_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(command.FIGURES, "tiny", FIGURE)
    main(["reproduce", "list"])
    printed = capsys.readouterr().out
    assert "mnist-sparsity" in command.FIGURES
    for figure in command.FIGURES.values():
        row = next(line for line in printed.splitlines() if f" {figure.name} " in line)
        assert figure.title in row
        assert all(scale in row for scale in figure.scales)


@pytest.mark.parametrize("figure", command.FIGURES.values(), ids=command.FIGURES)
def test_configs_of_figures_are_shipped(figure: Figure) -> None:
    assert all(figure.config_path(arm).is_file() for arm in figure.arms)
