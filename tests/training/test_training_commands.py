"""``lnsgd fit``, ``validate`` and ``test``: the files of a run, and that it can be repeated, resumed and tested."""

import json
import re
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from lnsgd import __version__
from lnsgd.cli import main
from lnsgd.runs.folder import RunFolder
from lnsgd.training import command_parser, option_names, train
from lnsgd.training.first_help import first_options
from lnsgd.training.shipped_configs import with_config_paths
from tests.small_config import instance, small_config, write_config

CONFIG = Path(__file__).parents[2] / "configs" / "mnist.yaml"

# Five steps an epoch, two epochs.
TINY = small_config(
    data={"subset": 500, "batch_size": 100},
    trainer={"max_epochs": 2, "log_every_n_steps": 1},
    callbacks=[instance("lnsgd.callbacks.DistanceFromInit")],
)

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
    """Make the folder in which all commands of this file run."""
    folder = tmp_path_factory.mktemp("cli")
    write_config(folder / "tiny.yaml", TINY)
    return folder


@pytest.fixture(autouse=True)
def work_in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def trained(folder: Path) -> Iterator[RunFolder]:
    """Train the run that others are compared with; tests do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield fit("trained")


def fit(run_dir: str, *options: str, config: str = "tiny.yaml") -> RunFolder:
    main(["fit", "--config", config, "--run_dir", run_dir, *options])
    return RunFolder(Path(run_dir).resolve())


def file_names(run: RunFolder) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}


def final_weights(run: RunFolder) -> dict[str, Tensor]:
    return torch.load(run.last_checkpoint, weights_only=False)["state_dict"]


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether all tensors are equal, bit for bit."""
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def logged(run: RunFolder, name: str) -> list[float]:
    return pd.read_csv(run.metrics)[name].dropna().tolist()


# Commands that do not train.


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]], ids=["nothing", "--help", "-h", "help"])
def test_usage_lists_all_commands(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(args)
    printed = capsys.readouterr().out
    assert printed.startswith("usage: lnsgd <command>")
    assert all(f"  {command} " in printed for command in ("fit", "validate", "test", "reproduce"))


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "reproduce"])
def test_help_of_a_command_lists_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    expected = {"fit": "--run_dir", "reproduce": "--scale"}.get(command, "--ckpt_path")
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_options_of_the_short_help_exist(command: str, tmp_path: Path) -> None:
    """Each is parsed with the value that the help gives as an example, beside a config that has its class."""
    stands_for = {"CONFIG": "mnist", "DIR": str(tmp_path), "FILE": str(tmp_path / "last.ckpt")}
    parser = command_parser(command)
    for option, value in first_options(command):
        if option == "--print_config":  # ends the process
            continue
        given = [option, stands_for.get(value, value)] if "+=" not in option else [option]
        parsed = parser.parse_args(with_config_paths(["--config", "mnist", *given]))
        assert parsed.config


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_full_help_lists_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "--help-all"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: lnsgd {command} ")
    missing = [name for name in option_names(command) if name not in printed]
    assert not missing


# Files of a run.


def test_run_leaves_its_files(trained: RunFolder) -> None:
    assert file_names(trained) >= FILES
    assert not [name for name in file_names(trained) if name.endswith(".part")]
    finished = json.loads(trained.finished.read_text())
    assert (finished["epochs"], finished["steps"], finished["processes"]) == (2, 10, 1)


def test_main_config_leaves_its_figures() -> None:
    """Train the main config, made small, with all its measures."""
    small = ["--data.source", "sample", "--data.subset", "200", "--model.net.widths", "[784, 6, 10]"]
    quick = ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"]
    run = fit("figures", *small, *quick, "--trainer.accelerator", "cpu", config=str(CONFIG))
    assert file_names(run) >= FILES | {"firings.safetensors"}
    pictures = list(run.figures.glob("*.png"))
    assert [picture.name for picture in pictures] == ["firing_histograms_net.activations.0.png"]
    assert pictures[0].read_bytes().startswith(b"\x89PNG")
    measures = pd.read_parquet(run.measures)
    columns = ["step", "epoch", "replica", "split", "measure", "layer", "value", "stderr", "which_weights"]
    assert list(measures.columns) == columns
    assert set(measures["measure"]) == {
        *("active_count", "active_fraction", "associated_count", "associated_fraction"),
        *("distance_from_init", "hessian_trace"),
    }


def test_measures_equal_metrics(trained: RunFolder) -> None:
    rows = pd.read_parquet(trained.measures).query("measure == 'distance_from_init' and layer == ''")
    assert rows["step"].tolist() == [0, 5, 10]
    assert rows["value"].tolist() == logged(trained, "distance_from_init")


def test_initial_weights_belong_to_step_zero(trained: RunFolder) -> None:
    """With learning rate zero, training ends where it began."""
    still = fit("still", "--model.optimizer.lr", "0")
    init = load_file(trained.init)
    assert are_equal(load_file(still.init), init)
    assert are_equal(final_weights(still), init)
    assert not are_equal(final_weights(trained), init)


def test_distance_equals_that_of_the_files(trained: RunFolder) -> None:
    init, end = load_file(trained.init), final_weights(trained)
    distance = torch.stack([(end[name] - init[name]).double().square().sum() for name in init]).sum().sqrt()
    assert logged(trained, "distance_from_init")[-1] == pytest.approx(distance.item(), rel=1e-6)


def test_recorded_config_repeats_the_run(trained: RunFolder) -> None:
    again = fit("again", config=str(trained.config))
    assert are_equal(final_weights(again), final_weights(trained))
    assert again.metrics.read_bytes() == trained.metrics.read_bytes()
    assert again.config.read_bytes() == trained.config.read_bytes()


def test_default_folder_is_named_after_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "tiny.yaml", TINY)
    for _ in range(3):
        main(["fit", "--config", "tiny.yaml", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"])
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tiny", "tiny-2", "tiny-3"]
    assert all((path / "finished.json").exists() for path in (tmp_path / "runs").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "tiny.yaml"]


def test_folder_is_named_after_the_first_of_several_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(Path("mine.yaml"), TINY)
    Path("more.yaml").write_text("trainer:\n  max_epochs: 1\n")
    main(["fit", "--config", "mine.yaml", "--config", "more.yaml"])
    main(["fit", "--config", "runs/mine/config.yaml"])  # a run of a recorded config is named after the recorded run
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mine", "mine-2"]


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_measures_in_other_precisions(precision: str) -> None:
    trackers = [f"--trainer.callbacks+={name}" for name in ("ActiveNeurons", "ClassAssociation", "HessianTrace")]
    run = fit(precision, "--trainer.precision", precision, "--trainer.max_epochs", "1", *trackers)
    assert all(value > 0 for value in logged(run, "active_fraction/train/net.activations.0"))
    assert all(torch.isfinite(torch.tensor(logged(run, "hessian_trace/train"))))


def test_run_killed_after_resuming_is_not_finished(trained: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(trained.path, run.path)
    assert run.finished.exists()
    with pytest.raises(KilledError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lnsgd.modules.Classifier.on_train_epoch_end", _killed)
        main(["fit", "--config", "tiny.yaml", "--run_dir", str(run.path), "--ckpt_path", "last", *MORE_EPOCHS])
    assert not run.finished.exists()


class KilledError(Exception):
    """The end of the process."""


def _killed(*args: object) -> None:
    raise KilledError


MORE_EPOCHS = ["--trainer.max_epochs", "3"]


def test_fast_dev_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "tiny.yaml", TINY)
    main(["fit", "--config", "tiny.yaml", "--trainer.fast_dev_run", "true", "--trainer.callbacks", "null"])
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


# Resuming.


def assert_ends_like(run: RunFolder, other: RunFolder) -> None:
    assert are_equal(final_weights(run), final_weights(other))
    assert load_file(run.init).keys() == load_file(other.init).keys()
    assert are_equal(load_file(run.init), load_file(other.init))
    pd.testing.assert_frame_equal(pd.read_csv(run.metrics), pd.read_csv(other.metrics), check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(run.measures), pd.read_parquet(other.measures), check_exact=True)


def test_resume_after_an_epoch(trained: RunFolder) -> None:
    fit("resumed", "--trainer.max_epochs", "1")
    assert_ends_like(fit("resumed", "--ckpt_path", "last"), trained)


def test_run_resumed_from_a_checkpoint_stays_in_its_folder(trained: RunFolder) -> None:
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
    """With checkpoints every three of five steps an epoch, a run that fails at step 8 resumes from step 6."""
    (tmp_path / "crash_at_step_8.py").write_text(CRASH)
    monkeypatch.syspath_prepend(tmp_path)
    config = deepcopy(TINY)
    checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 3, "save_last": True}}
    config["trainer"]["callbacks"].append(checkpoint)
    write_config(Path("steps.yaml"), config)
    config["trainer"]["callbacks"].append({"class_path": "crash_at_step_8.Crash"})
    write_config(Path("crash.yaml"), config)
    with pytest.raises(RuntimeError, match="the power fails"):
        fit("crashed", config="crash.yaml")
    crashed = RunFolder(Path("crashed").resolve())
    assert torch.load(crashed.last_checkpoint, weights_only=False)["global_step"] == 6
    assert not crashed.finished.exists()
    resumed = fit("crashed", "--ckpt_path", "last", config="steps.yaml")
    assert json.loads(resumed.finished.read_text())["steps"] == 10
    # The last checkpoint of both is that of step 9.
    assert_ends_like(resumed, fit("not-crashed", config="steps.yaml"))
    assert logged(resumed, "distance_from_init") == logged(trained, "distance_from_init")


# Validating and testing.


@pytest.mark.parametrize("command", ["test", "validate"])
def test_checkpoint_gives_the_last_logged_accuracy(
    trained: RunFolder, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validation uses the test set here, so both commands must print what training logged last."""
    before = set(Path().rglob("*"))
    main([command, "--config", str(trained.config), "--ckpt_path", str(trained.last_checkpoint)])
    printed = capsys.readouterr().out
    split = "test" if command == "test" else "val"
    found = re.search(rf"{split}/accuracy\D*(\d\.\d+)", printed)
    assert found, f"no accuracy in: {printed!r}"
    assert float(found[1]) == pytest.approx(logged(trained, "val/accuracy")[-1], abs=1e-4)
    assert set(Path().rglob("*")) == before


# Options.


def test_nested_option_sets_the_noise() -> None:
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


def test_label_noise_of_the_users_own_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noise_of_mine.py").write_text(USER_NOISE)
    monkeypatch.syspath_prepend(tmp_path)
    noise = ["--model.label_noise", "noise_of_mine.NextClass", "--model.label_noise.by", "3"]
    run = fit("user", *noise, "--trainer.max_epochs", "1")
    assert logged(run, "train/flip_rate") == [1.0]
    assert yaml.safe_load(run.config.read_text())["model"]["init_args"]["label_noise"]["init_args"] == {"by": 3}


def test_one_callback_can_be_given_without_a_list() -> None:
    """Lightning's Trainer accepts one callback too."""
    config = deepcopy(TINY)
    config["trainer"]["callbacks"] = config["trainer"]["callbacks"][0]
    write_config(Path("one.yaml"), config)
    assert logged(fit("one", "--trainer.max_epochs", "1", config="one.yaml"), "distance_from_init")


# Seeds.


def test_seed_changes_initial_and_final_weights(trained: RunFolder) -> None:
    other = fit("seed-1", "--seed_everything", "1")
    assert not are_equal(load_file(other.init), load_file(trained.init))
    assert not are_equal(final_weights(other), final_weights(trained))


def test_seed_goes_to_model_and_data() -> None:
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
    assert are_equal(load_file(run.init), load_file(trained.init))
    assert logged(run, "train/loss") != logged(trained, "train/loss")[:1]
