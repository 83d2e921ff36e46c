"""The command ``lnsgd``: what a run leaves, that it can be repeated, resumed and tested."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from lnsgd import __version__
from lnsgd.cli import main
from lnsgd.run_folder import RunFolder
from lnsgd.training import train

CONFIG = Path(__file__).parents[1] / "configs" / "mnist.yaml"

# Five steps an epoch, two epochs. Momentum, so that the optimizer has a state that a resumed run needs.
TINY = """\
model:
  class_path: lnsgd.modules.Classifier
  init_args:
    net:
      class_path: lnsgd.models.MLP
      init_args:
        widths: [784, 12, 10]
    label_noise:
      class_path: lnsgd.label_noise.UniformNoise
      init_args:
        p: 0.2
    optimizer:
      class_path: torch.optim.SGD
      init_args:
        lr: 0.1
        momentum: 0.9
data:
  class_path: lnsgd.data.MNIST
  init_args:
    source: sample
    subset: 500
    batch_size: 100
trainer:
  accelerator: cpu
  max_epochs: 2
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lnsgd.callbacks.DistanceFromInit
"""

FILES = {
    "config.yaml",
    "init.safetensors",
    "metrics.csv",
    "measures.parquet",
    "checkpoints/last.ckpt",
    "finished.json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all commands of this file run."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(TINY)
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def trained(folder: Path) -> Iterator[RunFolder]:
    """The run that others are compared with; tests leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield fit("trained")


def fit(run_dir: str, *options: str, config: str = "tiny.yaml") -> RunFolder:
    main(["fit", "--config", config, "--run_dir", run_dir, *options])
    return RunFolder(Path(run_dir).resolve())


def files(run: RunFolder) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}


def final(run: RunFolder) -> dict[str, Tensor]:
    return torch.load(run.last_checkpoint, weights_only=False)["state_dict"]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit, all tensors."""
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def logged(run: RunFolder, name: str) -> list[float]:
    return pd.read_csv(run.metrics)[name].dropna().tolist()


# Without training.


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]], ids=["nothing", "--help", "-h", "help"])
def test_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(args)
    printed = capsys.readouterr().out
    assert printed.startswith("usage: lnsgd <command>")
    assert all(f"  {command} " in printed for command in ("fit", "validate", "test", "reproduce"))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "reproduce"])
def test_help_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert ("--scale" if command == "reproduce" else "--run_dir") in capsys.readouterr().out


# What a run leaves.


def test_files_of_a_run(trained: RunFolder) -> None:
    assert files(trained) >= FILES
    assert not [name for name in files(trained) if name.endswith(".part")]
    finished = json.loads(trained.finished.read_text())
    assert (finished["epochs"], finished["steps"], finished["processes"]) == (2, 10, 1)


def test_figures_of_a_run() -> None:
    """The main config, made small, with all its measures."""
    small = ["--data.source", "sample", "--data.subset", "200", "--model.net.widths", "[784, 6, 10]"]
    quick = ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"]
    run = fit("figures", *small, *quick, "--trainer.accelerator", "cpu", config=str(CONFIG))
    assert files(run) >= FILES | {"firings.safetensors"}
    pictures = list(run.figures.glob("*.png"))
    assert [picture.name for picture in pictures] == ["firing_histograms_net.activations.0.png"]
    assert pictures[0].read_bytes().startswith(b"\x89PNG")
    measures = pd.read_parquet(run.measures)
    assert list(measures.columns) == ["step", "epoch", "replica", "split", "measure", "layer", "value", "stderr"]
    assert set(measures["measure"]) == {
        *("active_count", "active_fraction", "associated_count", "associated_fraction"),
        *("distance_from_init", "hessian_trace"),
    }


def test_measures_and_metrics_agree(trained: RunFolder) -> None:
    rows = pd.read_parquet(trained.measures).query("measure == 'distance_from_init' and layer == ''")
    assert rows["step"].tolist() == [0, 5, 10]
    assert rows["value"].tolist() == logged(trained, "distance_from_init")


def test_initial_weights_are_those_of_step_zero(trained: RunFolder) -> None:
    """With step size zero training ends where it began."""
    still = fit("still", "--model.optimizer.lr", "0")
    init = load_file(trained.init)
    assert same(load_file(still.init), init)
    assert same(final(still), init)
    assert not same(final(trained), init)


def test_distance_is_that_of_the_files(trained: RunFolder) -> None:
    init, end = load_file(trained.init), final(trained)
    distance = torch.stack([(end[name] - init[name]).double().square().sum() for name in init]).sum().sqrt()
    assert logged(trained, "distance_from_init")[-1] == pytest.approx(distance.item(), rel=1e-6)


def test_written_config_gives_the_same_run(trained: RunFolder) -> None:
    again = fit("again", config=str(trained.config))
    assert same(final(again), final(trained))
    assert again.metrics.read_bytes() == trained.metrics.read_bytes()
    assert again.config.read_bytes() == trained.config.read_bytes()


def test_default_folder_is_named_after_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    for _ in range(3):
        main(["fit", "--config", "tiny.yaml", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"])
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tiny", "tiny-2", "tiny-3"]
    assert all((path / "finished.json").exists() for path in (tmp_path / "runs").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "tiny.yaml"]


def test_folder_is_named_after_the_first_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(TINY)
    Path("more.yaml").write_text("trainer:\n  max_epochs: 1\n")
    main(["fit", "--config", "mine.yaml", "--config", "more.yaml"])
    main(["fit", "--config", "runs/mine/config.yaml"])  # the record of a run is named after the run
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mine", "mine-2"]


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_measures_in_other_precisions(precision: str) -> None:
    trackers = [f"--trainer.callbacks+={name}" for name in ("ActiveNeurons", "ClassAssociation", "HessianTrace")]
    run = fit(precision, "--trainer.precision", precision, "--trainer.max_epochs", "1", *trackers)
    assert all(value > 0 for value in logged(run, "active_fraction/train/net.activations.0"))
    assert all(torch.isfinite(torch.tensor(logged(run, "hessian_trace/train"))))


def test_killed_after_going_on_is_not_finished(trained: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(trained.path, run.path)
    assert run.finished.exists()
    with pytest.raises(KilledError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lnsgd.modules.Classifier.on_train_epoch_end", _killed)
        main(["fit", "--config", "tiny.yaml", "--run_dir", str(run.path), "--ckpt_path", "last", *MORE_EPOCHS])
    assert not run.finished.exists()


class KilledError(Exception):
    """Stands for the end of the process."""


def _killed(*args: object) -> None:
    raise KilledError


MORE_EPOCHS = ["--trainer.max_epochs", "3"]


def test_debug_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    main(["fit", "--config", "tiny.yaml", "--trainer.fast_dev_run", "true", "--trainer.callbacks", "null"])
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


# Going on.


def assert_ends_like(run: RunFolder, other: RunFolder) -> None:
    assert same(final(run), final(other))
    assert load_file(run.init).keys() == load_file(other.init).keys()
    assert same(load_file(run.init), load_file(other.init))
    pd.testing.assert_frame_equal(pd.read_csv(run.metrics), pd.read_csv(other.metrics), check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(run.measures), pd.read_parquet(other.measures), check_exact=True)


def test_resume_after_an_epoch(trained: RunFolder) -> None:
    fit("resumed", "--trainer.max_epochs", "1")
    assert_ends_like(fit("resumed", "--ckpt_path", "last"), trained)


def test_resume_from_a_checkpoint_goes_on_in_its_folder(trained: RunFolder) -> None:
    stopped = fit("by-path", "--trainer.max_epochs", "1")
    main(["fit", "--config", "tiny.yaml", "--ckpt_path", str(stopped.last_checkpoint)])
    assert_ends_like(stopped, trained)


CRASH = """\
from pytorch_lightning import Callback


class Crash(Callback):
    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == 8:
            raise RuntimeError("the power fails")
"""


def test_resume_in_the_middle_of_an_epoch(trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints every three steps, five steps an epoch; the power fails at step 8, the run goes on from step 6."""
    (tmp_path / "crash_at_step_8.py").write_text(CRASH)
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load(TINY)
    checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 3, "save_last": True}}
    config["trainer"]["callbacks"].append(checkpoint)
    Path("steps.yaml").write_text(yaml.safe_dump(config))
    config["trainer"]["callbacks"].append({"class_path": "crash_at_step_8.Crash"})
    Path("crash.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(RuntimeError, match="the power fails"):
        fit("crashed", config="crash.yaml")
    crashed = RunFolder(Path("crashed").resolve())
    assert torch.load(crashed.last_checkpoint, weights_only=False)["global_step"] == 6
    assert not crashed.finished.exists()
    resumed = fit("crashed", "--ckpt_path", "last", config="steps.yaml")
    assert json.loads(resumed.finished.read_text())["steps"] == 10
    # The last checkpoint is of step 9, in both.
    assert_ends_like(resumed, fit("not-crashed", config="steps.yaml"))
    assert logged(resumed, "distance_from_init") == logged(trained, "distance_from_init")


# Testing.


@pytest.mark.parametrize("command", ["test", "validate"])
def test_checkpoint(trained: RunFolder, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Validation is on the test set here, so both must print what training logged last."""
    before = set(Path().rglob("*"))
    main([command, "--config", str(trained.config), "--ckpt_path", str(trained.last_checkpoint)])
    printed = capsys.readouterr().out
    split = "test" if command == "test" else "val"
    found = re.search(rf"{split}/accuracy\D*(\d\.\d+)", printed)
    assert found, f"no accuracy in: {printed!r}"
    assert float(found[1]) == pytest.approx(logged(trained, "val/accuracy")[-1], abs=1e-4)
    assert set(Path().rglob("*")) == before


# Options.


def test_short_option_sets_the_noise() -> None:
    run = fit("short", "--model.label_noise.p", "1", "--trainer.max_epochs", "1")
    config = yaml.safe_load(run.config.read_text())
    assert config["model"]["init_args"]["label_noise"]["init_args"] == {"p": 1.0}
    # A replaced label is the true one every tenth time: 0.9 ± 0.013 over 500 labels.
    assert logged(run, "train/flip_rate")[0] == pytest.approx(0.9, abs=4 * 0.0134)


USER_NOISE = """\
import torch

from lnsgd.label_noise import LabelNoise


class NextClass(LabelNoise):
    targets = "hard"

    def __init__(self, by: int):
        self.by = by

    def draw(self, shape, generator, num_classes=None):
        return torch.empty(shape[0], 0)

    def apply(self, labels, noise, num_classes=None):
        return (labels + self.by) % num_classes

    def at_level(self, level):
        return NextClass(int(level))
"""


def test_label_noise_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noise_of_mine.py").write_text(USER_NOISE)
    monkeypatch.syspath_prepend(tmp_path)
    noise = ["--model.label_noise", "noise_of_mine.NextClass", "--model.label_noise.by", "3"]
    run = fit("user", *noise, "--trainer.max_epochs", "1")
    assert logged(run, "train/flip_rate") == [1.0]
    assert yaml.safe_load(run.config.read_text())["model"]["init_args"]["label_noise"]["init_args"] == {"by": 3}


def test_one_callback_needs_no_list() -> None:
    """Lightning's own Trainer takes one callback as it is."""
    config = yaml.safe_load(TINY)
    config["trainer"]["callbacks"] = config["trainer"]["callbacks"][0]
    Path("one.yaml").write_text(yaml.safe_dump(config))
    assert logged(fit("one", "--trainer.max_epochs", "1", config="one.yaml"), "distance_from_init")


# Seeds.


def test_seed_changes_initial_and_final_weights(trained: RunFolder) -> None:
    other = fit("seed-1", "--seed_everything", "1")
    assert not same(load_file(other.init), load_file(trained.init))
    assert not same(final(other), final(trained))


def test_seed_is_that_of_model_and_data() -> None:
    options = ["--seed_everything", "7", "--run_dir", "seed-7", "--trainer.max_steps", "1"]
    cli = train(["fit", "--config", "tiny.yaml", *options])
    assert (cli.model.seed, cli.datamodule.seed) == (7, 7)


NOISES = {
    "none": ["--model.label_noise", "NoNoise"],
    "less": ["--model.label_noise.p", "0.01"],
    "smoothing": ["--model.label_noise", "LabelSmoothing", "--model.label_noise.p", "0.2"],
}


@pytest.mark.parametrize("options", NOISES.values(), ids=NOISES)
def test_noise_does_not_change_the_initial_weights(
    trained: RunFolder, options: list[str], request: pytest.FixtureRequest
) -> None:
    run = fit(f"noise-{request.node.callspec.id}", *options, "--trainer.max_epochs", "1")
    assert same(load_file(run.init), load_file(trained.init))
    assert logged(run, "train/loss") != logged(trained, "train/loss")[:1]
