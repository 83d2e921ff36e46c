"""The command ``lnsgd`` with ``--replicas``: what a run leaves, that it can be repeated, resumed and tested."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from lnsgd import rng
from lnsgd.cli import main
from lnsgd.models import MLP
from lnsgd.runs.folder import RunFolder
from tests.small_config import instance, mlp, small_config, uniform_noise, write_config

# Five steps an epoch, two epochs; the config's own noise level is not among those of the replicas.
TINY = small_config(
    model={"net": mlp(784, 6, 10), "label_noise": uniform_noise(0.5)},
    data={"val_size": 200},
    trainer={"max_epochs": 2},
    callbacks=[instance("lnsgd.callbacks.DistanceFromInit", every_n_steps=2)],
)

GRID = ["--replicas.seeds", "2", "--replicas.noise", "[0,0.2]"]
SETTINGS = [(0, 0.0), (1, 0.0), (0, 0.2), (1, 0.2)]  # seed and noise of each replica
STEPS = 10

FILES = {
    *("config.yaml", "init.safetensors", "metrics.csv", "measures.parquet", "replicas.csv"),
    *("checkpoints/last.ckpt", "finished.json"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all commands of this file run."""
    folder = tmp_path_factory.mktemp("replicas")
    write_config(folder / "tiny.yaml", TINY)
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LNSGD_DEBUG", raising=False)


@pytest.fixture(scope="module")
def trained(folder: Path) -> Iterator[RunFolder]:
    """The run that others are compared with; tests leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield fit("trained")


def fit(run_dir: str, *options: str, config: str = "tiny.yaml", grid: list[str] = GRID) -> RunFolder:
    main(["fit", "--config", config, "--run_dir", run_dir, *grid, *options])
    return RunFolder(Path(run_dir).resolve())


def final(run: RunFolder) -> dict[str, Tensor]:
    return torch.load(run.last_checkpoint, weights_only=False)["state_dict"]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether all tensors have the same bits."""
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def assert_ends_like(run: RunFolder, other: RunFolder) -> None:
    assert same(final(run), final(other))
    assert same(load_file(run.init), load_file(other.init))
    ours, theirs = pd.read_csv(run.metrics), pd.read_csv(other.metrics)
    # Sums of losses are cut where calls are, which hangs on the time that they take.
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=1e-12)
    pd.testing.assert_frame_equal(pd.read_parquet(run.measures), pd.read_parquet(other.measures), check_exact=True)
    assert run.replicas.read_text() == other.replicas.read_text()


# --- what a run leaves ---


def test_files_of_a_run(trained: RunFolder) -> None:
    found = {str(path.relative_to(trained.path)) for path in trained.path.rglob("*") if path.is_file()}
    assert found >= FILES
    assert not [name for name in found if name.endswith(".part")]
    finished = json.loads(trained.finished.read_text())
    assert (finished["epochs"], finished["steps"], finished["processes"]) == (2, STEPS, 1)


def test_replicas_of_a_run(trained: RunFolder) -> None:
    table = pd.read_csv(trained.replicas)
    ends = ["diverged_at", "stopped_at", "stopped_by"]
    assert list(table.columns) == ["replica", "seed", "noise", "lr", "subset", *ends]
    assert table["replica"].tolist() == [0, 1, 2, 3]
    assert list(zip(table["seed"], table["noise"])) == SETTINGS
    assert table[["lr", "subset", *ends]].isna().all(axis=None)


def test_diverged_replicas_are_marked() -> None:
    loss = ["--model.loss", "SquaredLoss", "--replicas.lr", "[0.01,1e30]"]
    run = fit("diverging", *loss, grid=["--replicas.seeds", "2"])
    diverged = pd.read_csv(run.replicas)["diverged_at"]
    assert diverged.isna().tolist() == [True, True, False, False]
    assert (diverged[2:] < STEPS).all()
    assert pd.read_csv(run.metrics)["diverged/lr=1e+30"].iloc[-1] == 2
    assert json.loads(run.finished.read_text())["steps"] == STEPS


def test_measures_of_each_replica(trained: RunFolder) -> None:
    rows = pd.read_parquet(trained.measures).query("layer == ''")
    assert sorted(set(rows["step"])) == [0, 2, 4, 6, 8, 10]
    assert rows.groupby("step")["replica"].apply(list).tolist() == [[0, 1, 2, 3]] * 6
    values = rows.query("step == 10").sort_values("replica")["value"]
    logged = pd.read_csv(trained.metrics).set_index("step").loc[10]
    for group, own in {"noise=0.0": values[:2], "noise=0.2": values[2:]}.items():
        assert logged[f"distance_from_init/{group}/mean"] == pytest.approx(own.mean(), rel=1e-12)
        assert logged[f"distance_from_init/{group}/std"] == pytest.approx(own.std(), rel=1e-9)


def test_initial_weights_equal_those_of_the_runs_alone(trained: RunFolder) -> None:
    init = load_file(trained.init)
    for index, (seed, _) in enumerate(SETTINGS):
        with rng.forked(seed, "init"):
            net = MLP([784, 6, 10])
        assert same({name: init[f"stack.net.{name}"][index] for name in net.state_dict()}, net.state_dict())


def test_a_replica_ends_with_the_weights_of_its_run_alone(trained: RunFolder) -> None:
    stacked = final(trained)
    for index in (0, 3):
        seed, noise = SETTINGS[index]
        options = ["--seed_everything", str(seed), "--model.label_noise.p", str(noise)]
        alone = final(fit(f"alone-{index}", *options, grid=[]))
        for name, value in alone.items():
            torch.testing.assert_close(stacked[f"stack.{name}"][index], value, rtol=1e-4, atol=1e-6)


def test_written_config_gives_the_same_run(trained: RunFolder) -> None:
    again = fit("again", config=str(trained.config), grid=[])
    assert_ends_like(again, trained)
    assert again.config.read_bytes() == trained.config.read_bytes()


def test_the_first_replica_has_the_seed_of_the_run() -> None:
    run = fit("seed-7", "--seed_everything", "7", "--trainer.max_steps", "1", grid=["--replicas.seeds", "3"])
    assert pd.read_csv(run.replicas)["seed"].tolist() == [7, 8, 9]


def test_a_grid_in_the_config(tmp_path: Path) -> None:
    config = deepcopy(TINY)
    config["replicas"] = {"seeds": [4, 2], "lr": [0.1, 0.2], "engine": "kernel", "steps_per_call": 3}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(config))
    run = fit(str(tmp_path / "run"), config=str(tmp_path / "grid.yaml"), grid=[])
    table = pd.read_csv(run.replicas)
    assert list(zip(table["lr"], table["seed"])) == [(0.1, 4), (0.1, 2), (0.2, 4), (0.2, 2)]


# --- going on ---


def test_resume_after_an_epoch(trained: RunFolder) -> None:
    fit("resumed", "--trainer.max_epochs", "1")
    resumed = fit("resumed", "--ckpt_path", "last")
    assert same(final(resumed), final(trained))
    assert same(load_file(resumed.init), load_file(trained.init))
    # The end of the first run was measured too, at step 5.
    measures = pd.read_parquet(resumed.measures).query("step != 5").reset_index(drop=True)
    pd.testing.assert_frame_equal(measures, pd.read_parquet(trained.measures), check_exact=True)


KILL = """\
import os
import signal

from pytorch_lightning import Callback


class Kill(Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step >= 8:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_and_resumed(tmp_path: Path) -> None:
    """Checkpoints every three steps; killed at step 8, the run goes on from step 6."""
    (tmp_path / "kill_at_step_8.py").write_text(KILL)
    config = deepcopy(TINY)
    checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 3, "save_last": True}}
    config["trainer"]["callbacks"].append(checkpoint)
    (tmp_path / "steps.yaml").write_text(yaml.safe_dump(config))
    config["trainer"]["callbacks"].append({"class_path": "kill_at_step_8.Kill"})
    (tmp_path / "kill.yaml").write_text(yaml.safe_dump(config))
    run = RunFolder(tmp_path / "killed")
    arguments = ["fit", "--config", str(tmp_path / "kill.yaml"), "--run_dir", str(run.path), *GRID]
    killed = subprocess.run(
        [sys.executable, "-c", "from lnsgd.cli import main; main()", *arguments],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert torch.load(run.last_checkpoint, weights_only=False)["global_step"] == 6
    assert not run.finished.exists()
    resumed = fit(str(run.path), "--ckpt_path", "last", config=str(tmp_path / "steps.yaml"))
    assert_ends_like(resumed, fit(str(tmp_path / "whole"), config=str(tmp_path / "steps.yaml")))
    assert json.loads(resumed.finished.read_text())["steps"] == STEPS


# --- testing ---


@pytest.mark.parametrize("command", ["test", "validate"])
def test_checkpoint(trained: RunFolder, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(Path().rglob("*"))
    main([command, "--config", str(trained.config), "--ckpt_path", str(trained.last_checkpoint)])
    printed = capsys.readouterr().out
    split = "test" if command == "test" else "val"
    for noise in ("noise=0.0", "noise=0.2"):
        found = re.search(rf"^{split}/accuracy/{noise}/mean: (\S+)$", printed, re.MULTILINE)
        assert found, f"no accuracy in: {printed!r}"
        if split == "val":
            logged = pd.read_csv(trained.metrics)[f"val/accuracy/{noise}/mean"].iloc[-1]
            assert float(found[1]) == pytest.approx(logged, abs=1e-5)
    assert set(Path().rglob("*")) == before


# --- bad input ---

GELU = """\
import torch

from lnsgd.models import MLP


class GeluNet(MLP):
    def __init__(self, hidden: int = 6):
        super().__init__([784, hidden, 10])
        self.activations[0] = torch.nn.GELU()
"""

KERNEL = ["--replicas.engine", "kernel"]
REFUSED: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "deep-net": ([*KERNEL, "--model.net.widths", "[784, 6, 5, 10]"], ("engine = kernel", "2 hidden layers")),
    "gelu": ([*KERNEL, "--model.net", "gelu_net.GeluNet"], ("engine = kernel", "GeluNet")),
    "no-seeds": (["--replicas.seeds", "0"], ("replicas.seeds = 0", "at least 1")),
    "repeated-seeds": (["--replicas.seeds", "[1, 1]"], ("replicas.seeds = [1, 1]", "different")),
    "repeated-noise": (["--replicas.noise", "[0.1, 0.1]"], ("replicas.noise = [0.1, 0.1]", "different")),
    "noise-out-of-range": (["--replicas.noise", "[0.1, 1.5]"], ("p = 1.5", "[0, 1]")),
    "steps-per-call": (["--replicas.steps_per_call", "0"], ("replicas.steps_per_call = 0", "at least 1")),
    "subset-too-large": (["--replicas.subset", "[10, 20000]"], ("subset = 20000",)),
    "noise-of-no-noise": (["--model.label_noise", "NoNoise"], ("NoNoise has no level", "another label noise")),
    "adam": (["--model.optimizer", "Adam", "--model.optimizer.lr", "0.1"], ("torch.optim.SGD", "Adam")),
    "nesterov": (["--model.optimizer.nesterov", "true"], ("nesterov = True", "not offered")),
    "weight-decay": (["--model.optimizer.weight_decay", "0.1"], ("weight_decay = 0.1", "not offered")),
    "schedule": (
        ["--model.lr_scheduler", "ExponentialLR", "--model.lr_scheduler.gamma", "0.9"],
        ("StepLR and MultiStepLR", "ExponentialLR"),
    ),
    "engine": (["--replicas.engine", "kernle"], ("replicas.engine = kernle", "kernel")),
    "key": (["--replicas.seed", "3"], ("seed",)),
    "precision": (["--trainer.precision", "bf16-true"], ("trainer.precision = bf16-true", "32-true")),
    "outputs": (["--model.net.widths", "[784, 6, 4]"], ("4 outputs", "10 classes")),
    "inputs": (["--model.net.widths", "[100, 6, 10]"], ("widths = [100, 6, 10]", "784 numbers")),
}

# Lines of Lightning that may come before the error.
LIGHTNING = re.compile(r"^(Seed set to|GPU available|TPU available|HPU available|💡|`Trainer\()")


@pytest.mark.parametrize(("options", "says"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(
    options: list[str],
    says: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "gelu_net.py").write_text(GELU)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(Path().rglob("*"))
    with pytest.raises(SystemExit) as ended:
        fit("refused", *options)
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and not LIGHTNING.match(line)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("lnsgd: error: ")
    assert not [part for part in says if part not in lines[0]], lines[0]
    assert set(Path().rglob("*")) == before
