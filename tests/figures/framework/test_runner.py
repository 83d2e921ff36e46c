"""Running the arms of a figure: each once with all seeds, resumed where it stopped, never with other settings."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor

import lnsgd.training.cli
from lnsgd.figures.framework.claims import Claim
from lnsgd.figures.framework.figure import Figure, Scale
from lnsgd.figures.framework.results import measured, replicas
from lnsgd.figures.framework.runner import run_figure
from lnsgd.records.provenance import read_provenance
from lnsgd.runs.folder import RunFolder
from tests.figures import tiny


def weights(run_folder: RunFolder) -> dict[str, Tensor]:
    return torch.load(run_folder.last_checkpoint, weights_only=False)["state_dict"]


def assert_ends_like(run: RunFolder, other: RunFolder) -> None:
    one, two = weights(run), weights(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    pd.testing.assert_frame_equal(pd.read_parquet(run.measures), pd.read_parquet(other.measures), check_exact=True)
    assert run.replicas.read_text() == other.replicas.read_text()


def given(args: list[str], option: str) -> str:
    return args[args.index(option) + 1]


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
    return tiny.figure(tmp_path_factory.mktemp("figure"))


@pytest.fixture(scope="module")
def done(figure: Figure, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a figure's folder by a complete call; tests do not change it."""
    out = tmp_path_factory.mktemp("done") / "out"
    tiny.run(figure, out)
    yield out


def interrupted(done: Path, tmp_path: Path) -> RunFolder:
    """Copy the complete folder, with a second run that is not finished."""
    shutil.copytree(done, tmp_path / "out")
    victim = RunFolder(tmp_path / "out" / tiny.FOLDERS[1])
    victim.finished.unlink()
    return victim


# --- what is trained ---


def test_every_arm_is_trained_once_with_all_seeds_as_replicas(
    figure: Figure, tmp_path: Path, trainings: list[list[str]]
) -> None:
    runs = tiny.run(figure, tmp_path, seeds=3)
    assert [given(args, "--run_dir") for args in trainings] == [str(tmp_path / name) for name in tiny.FOLDERS]
    assert [given(args, "--replicas.seeds") for args in trainings] == ["3", "3"]
    assert {arm: run.path for arm, run in runs.items()} == {
        arm: tmp_path / name for arm, name in zip(tiny.ARMS, tiny.FOLDERS)
    }
    for run in runs.values():
        assert replicas(run)["seed"].tolist() == [0, 1, 2]
        curves = measured(run, "active_count", "train")
        assert (curves.steps.tolist(), curves.values.shape) == (tiny.STEPS, (3, 5))


def test_runs_have_the_settings_of_their_arm(done: Path) -> None:
    for name, p in zip(tiny.FOLDERS, (0, 0.5)):
        config = yaml.safe_load(RunFolder(done / name).config.read_text())
        assert config["model"]["init_args"]["label_noise"]["init_args"]["p"] == p
        assert json.loads(RunFolder(done / name).finished.read_text())["steps"] == tiny.STEPS[-1]


def test_runs_have_the_settings_of_their_scale_and_of_the_arm_in_it(figure: Figure, tmp_path: Path) -> None:
    runs = tiny.run(figure, tmp_path, "arm")
    sizes = [yaml.safe_load(run.config.read_text())["data"]["init_args"]["test_size"] for run in runs.values()]
    assert sizes == [40, 30]


def test_arms_may_have_configs_of_their_own(tmp_path: Path) -> None:
    one = tiny.figure(tmp_path).config_path("p = 0")
    other = tmp_path / "other.yaml"
    other.write_text(tiny.CONFIG.replace("lr: 0.1", "lr: 0.3"))
    figure = tiny.figure(tmp_path, config=dict(zip(tiny.ARMS, (str(one), str(other)))))
    runs = tiny.run(figure, tmp_path / "out", seeds=1)
    optimizers = [yaml.safe_load(run.config.read_text())["model"]["init_args"]["optimizer"] for run in runs.values()]
    assert [optimizer["init_args"]["lr"] for optimizer in optimizers] == [0.1, 0.3]
    other.write_text(tiny.CONFIG)
    with pytest.raises(ValueError, match="holds runs with other settings"):
        tiny.run(figure, tmp_path / "out", seeds=1)


def test_arms_share_the_initial_weights_of_a_seed(done: Path) -> None:
    first, second = (RunFolder(done / name).init.read_bytes() for name in tiny.FOLDERS)
    assert first == second


def test_fewer_seeds_are_the_first_of_more(figure: Figure, done: Path, tmp_path: Path) -> None:
    more = tiny.run(figure, tmp_path, seeds=3)
    for arm, name in zip(tiny.ARMS, tiny.FOLDERS):
        few = measured(RunFolder(done / name), "active_count", "train").values
        assert (measured(more[arm], "active_count", "train").values[:2] == few).all()


def test_same_seeds_same_claims(figure: Figure, done: Path, tmp_path: Path) -> None:
    def judged(out: Path) -> list[Claim]:
        return figure.claims(tiny.run(figure, out))

    assert judged(tmp_path) == judged(done)
    assert [claim.holds for claim in judged(done)] == [True, False]


def test_progress_is_printed(figure: Figure, done: Path) -> None:
    told = io.StringIO()
    run_figure(figure, "ci", 2, done, Console(file=told, width=200))
    assert told.getvalue().splitlines() == [
        "tiny 1/2: p = 0, 2 seeds (finished before)",
        "tiny 2/2: p = 0.5, 2 seeds (finished before)",
    ]


def test_the_comparison_is_printed_once_its_arms_have_finished(figure: Figure, done: Path, tmp_path: Path) -> None:
    """After the first of two arms, if the second is not finished; a figure that is complete has its last screen."""
    compared = replace(figure, comparison=lambda runs: Table(", ".join(runs)), compared=["p = 0"])
    told = io.StringIO()
    run_figure(compared, "ci", 2, done, Console(file=told, width=200))
    assert "first comparison" not in told.getvalue()
    interrupted(done, tmp_path)
    run_figure(compared, "ci", 2, tmp_path / "out", Console(file=told, width=200))
    assert [line.rstrip() for line in told.getvalue().splitlines() if line][2:] == [
        "tiny 1/2: p = 0, 2 seeds (finished before)",
        "p = 0",
        "A first comparison: 1 more arm follows, then the claims and the picture.",
        "tiny 2/2: p = 0.5, 2 seeds (resuming)",
    ]


# --- resuming ---


def test_nothing_is_trained_twice(figure: Figure, done: Path, trainings: list[list[str]]) -> None:
    runs = tiny.run(figure, done)
    assert trainings == []
    assert all(run.finished.exists() for run in runs.values())


def test_an_unfinished_run_is_resumed(figure: Figure, done: Path, tmp_path: Path, trainings: list[list[str]]) -> None:
    victim = interrupted(done, tmp_path)
    begun = victim.init.stat().st_mtime_ns
    tiny.run(figure, tmp_path / "out")
    assert len(trainings) == 1
    assert given(trainings[0], "--run_dir") == str(victim.path)
    assert victim.finished.exists()
    assert victim.init.stat().st_mtime_ns == begun  # it was not started again
    assert_ends_like(victim, RunFolder(done / tiny.FOLDERS[1]))


def test_resumed_runs_end_like_uninterrupted_ones(figure: Figure, done: Path, tmp_path: Path) -> None:
    """The runs have finished their first epoch only, as if they had been killed then."""
    half = replace(figure, scales={"ci": Scale(seeds=2, options=["--trainer.max_epochs", "1"])})
    tiny.run(half, tmp_path)
    (tmp_path / "settings.json").unlink()
    for name in tiny.FOLDERS:
        RunFolder(tmp_path / name).finished.unlink()
    tiny.run(figure, tmp_path)
    for name in tiny.FOLDERS:
        assert_ends_like(RunFolder(tmp_path / name), RunFolder(done / name))


def test_a_run_without_a_checkpoint_starts_again(
    figure: Figure, done: Path, tmp_path: Path, trainings: list[list[str]]
) -> None:
    victim = interrupted(done, tmp_path)
    shutil.rmtree(victim.checkpoints)
    tiny.run(figure, tmp_path / "out")
    assert len(trainings) == 1
    assert_ends_like(victim, RunFolder(done / tiny.FOLDERS[1]))


# --- other settings ---

OTHERS: dict[str, tuple[dict[str, Any], str, int]] = {
    "scale": ({}, "paper", 2),
    "seeds": ({}, "ci", 3),
    "arm": ({"arms": {**tiny.ARMS, "p = 1": ["--model.label_noise.p", "1"]}}, "ci", 2),
    "options-of-an-arm": ({"arms": {**tiny.ARMS, "p = 0.5": ["--model.label_noise.p", "0.4"]}}, "ci", 2),
    "options-of-the-scale": ({"scales": {"ci": Scale(2, ["--model.optimizer.lr", "0.3"])}}, "ci", 2),
    "figure": ({"name": "another"}, "ci", 2),
    "config": ({"config": "mnist.yaml"}, "ci", 2),
}


@pytest.mark.parametrize(("changes", "scale", "seeds"), OTHERS.values(), ids=OTHERS)
def test_other_settings_are_refused(
    figure: Figure, done: Path, trainings: list[list[str]], changes: dict[str, Any], scale: str, seeds: int
) -> None:
    before = (done / "settings.json").read_bytes()
    with pytest.raises(ValueError, match="holds runs with other settings"):
        tiny.run(replace(figure, **changes), done, scale, seeds)
    assert trainings == []
    assert (done / "settings.json").read_bytes() == before


def test_an_edited_config_is_refused(done: Path, tmp_path: Path) -> None:
    edited = tiny.figure(tmp_path)
    edited.config_path("p = 0").write_text(tiny.CONFIG.replace("lr: 0.1", "lr: 0.2"))
    with pytest.raises(ValueError, match="holds runs with other settings"):
        tiny.run(edited, done)


def test_a_new_comment_in_a_config_is_accepted(done: Path, tmp_path: Path, trainings: list[list[str]]) -> None:
    edited = tiny.figure(tmp_path)
    shutil.copytree(done, tmp_path / "out")
    edited.config_path("p = 0").write_text(f"# A comment.\n{tiny.CONFIG}")
    tiny.run(edited, tmp_path / "out")
    assert trainings == []


# --- figures that are computed ---


def test_a_computed_figure_keeps_its_table_and_trains_nothing(tmp_path: Path, trainings: list[list[str]]) -> None:
    runs = tiny.run(tiny.computed_figure(), tmp_path)
    assert trainings == []
    assert list(runs) == ["computed"]
    table = pd.read_parquet(runs["computed"].measures)
    assert table.to_dict("list") == {"seed": [0, 0, 0, 1, 1, 1], "x": [0, 1, 2] * 2, "square": [0, 1, 4, 1, 4, 9]}
    assert read_provenance(runs["computed"].finished, ["seconds"]).seconds >= 0


def test_a_computed_figure_is_computed_once(tmp_path: Path) -> None:
    seen: list[int] = []

    def compute(seed: int) -> pd.DataFrame:
        seen.append(seed)
        return pd.DataFrame({"x": [seed]})

    figure = tiny.computed_figure(compute=compute)
    runs = tiny.run(figure, tmp_path)
    tiny.run(figure, tmp_path)
    assert seen == [0, 1]
    runs["computed"].finished.unlink()  # as if it had been killed
    tiny.run(figure, tmp_path)
    assert seen == [0, 1, 0, 1]


def test_a_computed_figure_refuses_other_seeds(tmp_path: Path) -> None:
    tiny.run(tiny.computed_figure(), tmp_path)
    with pytest.raises(ValueError, match="holds runs with other settings"):
        tiny.run(tiny.computed_figure(), tmp_path, seeds=3)


@pytest.mark.parametrize(
    "changes",
    [{"compute": None}, {"config": "mnist.yaml"}, {"arms": {"a": []}}, {"config": "mnist.yaml", "arms": {"a": []}}],
    ids=["nothing", "config-too", "arms-too", "both"],
)
def test_a_figure_is_either_trained_or_computed(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give config and arms, or compute"):
        tiny.computed_figure(**changes)
