"""Bad input: exit code 2, one line that names the value and the remedy, and nothing written."""

import gc
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lnsgd.cli import main
from lnsgd.data.mnist import IdxImageData

CONFIG = Path(__file__).parents[1] / "configs" / "mnist.yaml"

# A run that would be over in a moment if it were let through.
GOOD = [
    *("fit", "--config", str(CONFIG), "--data.source", "sample", "--data.subset", "100"),
    *("--trainer.accelerator", "cpu", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]

# Lines of Lightning that may come before the error.
LIGHTNING = re.compile(r"^(Seed set to|GPU available|TPU available|HPU available|💡|`Trainer\()")

# How the parser and this package speak among themselves; a user has no use for it.
INTERNALS = re.compile(r"compute_fn|NestedArg|Namespace\(|<class|typing\.|Parser key|Traceback|subtypes")

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused and write nothing; return the error line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LNSGD_DEBUG", raising=False)

    def run(args: list[str]) -> str:
        before = _content(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main(args)
        assert ended.value.code == 2
        assert _content(tmp_path) == before, "a refused command wrote something"
        return _error_line(capsys.readouterr().err)

    return run


def _content(folder: Path) -> dict[str, bytes]:
    """Return every file with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _error_line(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip() and not LIGHTNING.match(line)]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("lnsgd: error: ")
    assert not INTERNALS.search(lines[0]), lines[0]
    return lines[0]


def _assert_says(line: str, parts: tuple[str, ...]) -> None:
    assert not [part for part in parts if part not in line], line


OPTIONS = {
    # A value out of its range.
    "p-above-one": (["--model.label_noise.p", "1.5"], ("p = 1.5", "[0, 1]")),
    "p-negative": (["--model.label_noise.p", "-0.1"], ("p = -0.1", "[0, 1]")),
    "smoothing-p-above-one": (
        ["--model.label_noise", "LabelSmoothing", "--model.label_noise.p", "2"],
        ("p = 2.0", "[0, 1]"),
    ),
    "batch-size-zero": (["--data.batch_size", "0"], ("batch_size = 0", "at least 1")),
    "corrupted-fraction": (["--data.corrupted_fraction", "1.2"], ("corrupted_fraction = 1.2", "[0, 1]")),
    "subset-empty": (["--data.subset", "0"], ("subset = 0", "1 to 10000")),
    "subset-too-large": (["--data.subset", "10001"], ("subset = 10001", "1 to 10000")),
    "no-such-class-of-digits": (["--data.classes", "[3, 12]"], ("classes = [3, 12]", "[0, 1, 2")),
    "class-in-two-lists": (["--data.classes", "[[3, 4], [4]]"], ("classes = [[3, 4], [4]]", "none in common")),
    "devices-zero": (["--trainer.devices", "0"], ("trainer.devices = 0", "give 1 to")),
    "devices-too-many": (["--trainer.devices", "100000"], ("trainer.devices = 100000", "give 1 to")),
    "devices-all-cpus": (["--trainer.devices", "-1"], ("trainer.devices = -1", "give 1 to")),
    "devices-named-cpus": (["--trainer.devices", "[0, 1]"], ("trainer.devices = [0, 1]", "give 1 to")),
    "devices-word": (["--trainer.devices", "many"], ("trainer.devices = many", "give 1 to")),
    "nodes-zero": (["--trainer.num_nodes", "0"], ("`num_nodes`", "positive integer", "0")),
    "nodes-started-on-one": (["--trainer.num_nodes", "2"], ("trainer.num_nodes = 2", "one machine", "torchrun")),
    "strategy-fsdp": (["--trainer.strategy", "fsdp"], ("trainer.strategy = fsdp", "the whole network", "use ddp")),
    "strategy-deepspeed": (["--trainer.strategy", "deepspeed_stage_3"], ("trainer.strategy = deepspeed", "use ddp")),
    "strategy-class": (
        ["--trainer.strategy", "pytorch_lightning.strategies.ModelParallelStrategy"],
        ("strategies.ModelParallelStrategy", "use ddp"),
    ),
    "seed-true": (["--seed_everything", "true"], ("seed_everything = True", "integer >= 0")),
    "seed-negative": (["--seed_everything", "-3"], ("seed_everything = -3", "integer >= 0")),
    "schedule-zero": (
        ["--trainer.callbacks", "ActiveNeurons", "--trainer.callbacks.every_n_steps", "0"],
        ("0", "integer >= 1"),
    ),
    # Things that do not fit together.
    "centered-and-standardized": (
        ["--data.center", "true", "--data.standardize", "true"],
        ("standardize = True and center = True", "set one of them to false"),
    ),
    "smoothing-with-hinge": (
        ["--model.label_noise", "LabelSmoothing", "--model.label_noise.p", "0.1", "--model.loss", "HingeLoss"],
        ("HingeLoss", "LabelSmoothing", "choose another"),
    ),
    "layer-pattern": (
        ["--trainer.callbacks", "ActiveNeurons", "--trainer.callbacks.layers", "[foo.*]"],
        ("'foo.*'", "net.activations.0"),
    ),
    "outputs-too-few": (["--model.net.widths", "[784, 20, 1]"], ("1 outputs", "10 classes")),
    "outputs-too-many": (["--model.net.widths", "[784, 20, 12]"], ("12 outputs", "10 classes")),
    "inputs": (["--model.net.widths", "[100, 20, 10]"], ("widths = [100, 20, 10]", "784 numbers")),
    # Misspelled keys.
    "key-of-noise": (["--model.label_noise.q", "0.1"], ("'q'", "it takes: p")),
    "key-of-data": (["--data.batchsize", "3"], ("'batchsize'", "did you mean 'batch_size'?")),
    "key-of-optimizer": (["--model.optimizer.momentun", "3"], ("torch.optim.SGD", "did you mean 'momentum'?")),
    "key-of-callback": (
        ["--trainer.callbacks", "ActiveNeurons", "--trainer.callbacks.split", "val"],
        ("ActiveNeurons", "did you mean 'splits'?"),
    ),
    "key-of-net": (["--model.net.width", "[784, 10]"], ("'width'", "did you mean 'widths'?")),
    "key-at-top": (["--trianer.max_epochs", "3"], ("--trianer.max_epochs", "did you mean '--trainer.max_epochs'?")),
    # Values of the wrong kind.
    "type": (["--trainer.max_epochs", "abc"], ("trainer.max_epochs = abc", "expected int")),
    "type-in-optimizer": (["--model.optimizer.lr", "fast"], ("model.optimizer.lr = fast", "float")),
    "choice-of-source": (["--data.source", "smaple"], ("data.source = smaple", "full or sample")),
    "choice-of-activation": (["--model.net.activation", "relo"], ("model.net.activation = relo", "relu or tanh")),
    "class-of-loss": (["--model.loss", "Hinge"], ("model.loss = Hinge", "did you mean 'HingeLoss'?")),
    "class-of-optimizer": (["--model.optimizer", "SDG"], ("model.optimizer = SDG", "did you mean 'SGD'?")),
    "class-of-callback": (["--trainer.callbacks", "ActiveNeuron"], ("ActiveNeuron:", "did you mean 'ActiveNeurons'?")),
    "path-of-class": (["--data", "lnsgd.data.MINST"], ("data = lnsgd.data.MINST", "did you mean 'MNIST'?")),
    "accelerator-unknown": (["--trainer.accelerator", "gpuu"], ("'gpuu'", "cpu")),
    # Files.
    "config-missing": (["--config", "none.yaml"], ("none.yaml", "does not exist")),
    "checkpoint-missing": (["--ckpt_path", "nope/checkpoints/last.ckpt"], ("nope/checkpoints/last.ckpt", "no such")),
    "checkpoint-missing-with-run-dir": (["--ckpt_path", "nope.ckpt", "--run_dir", "r"], ("nope.ckpt", "no such")),
    "last-checkpoint-of-which-run": (["--ckpt_path", "last"], ("ckpt_path = last", "--run_dir")),
    "no-last-checkpoint": (["--ckpt_path", "last", "--run_dir", "r"], ("r/checkpoints/last.ckpt", "does not exist")),
}


@pytest.mark.parametrize(("options", "says"), OPTIONS.values(), ids=OPTIONS)
def test_option(refused: Refused, options: list[str], says: tuple[str, ...]) -> None:
    _assert_says(refused([*GOOD, *options]), says)


def test_a_name_of_several_classes_is_refused_with_their_paths(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a callback of the user's own that has the name of one of lnsgd."""
    monkeypatch.setitem(sys.modules, "own_callbacks", own := ModuleType("own_callbacks"))
    exec("from pytorch_lightning import Callback\nclass ClusterCount(Callback): ...", own.__dict__)
    line = refused([*GOOD, "--trainer.callbacks", "ClusterCount"])
    paths = ("own_callbacks.ClusterCount", "lnsgd.callbacks.ClusterCount")
    _assert_says(
        line, ("trainer.callbacks = ClusterCount", "several classes have this name; give the full path", *paths)
    )
    del own.ClusterCount
    gc.collect()  # the next tests find one class of this name


@pytest.mark.parametrize("command", ["test", "validate"])
def test_measuring_an_untrained_network(refused: Refused, command: str) -> None:
    line = refused([command, *GOOD[1:]])
    _assert_says(line, (f"lnsgd {command}", "--ckpt_path"))


def _checkpoint(folder: Path, widths: str) -> Path:
    main([*GOOD, "--model.net.widths", widths, "--run_dir", str(folder)])
    return folder / "checkpoints" / "last.ckpt"


def test_checkpoint_of_another_model(refused: Refused, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "trained", "[784, 8, 10]")
    line = refused([*GOOD, "--model.net.widths", "[784, 9, 10]", "--ckpt_path", str(path), "--allow_changes"])
    _assert_says(
        line, (str(path), "net.layers.0.weight is (8, 784) in the file and (9, 784) in the model", "config.yaml")
    )


def test_checkpoint_cut_short(refused: Refused, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "trained", "[784, 8, 10]")
    path.write_bytes(path.read_bytes()[:-1000])
    line = refused([*GOOD, "--model.net.widths", "[784, 8, 10]", "--ckpt_path", str(path)])
    _assert_says(line, (str(path), "damaged"))


def test_gpu_where_there_is_none(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    line = refused([*GOOD, "--trainer.accelerator", "gpu"])
    _assert_says(line, ("trainer.accelerator = gpu", "no GPU", "use cpu or auto"))


MLP_WITHOUT_WIDTHS = """\
model:
  class_path: lnsgd.modules.Classifier
  init_args:
    net:
      class_path: lnsgd.models.MLP
      init_args:
        width: [784, 600, 10]
"""

CONFIGS = {
    "key-of-net": (MLP_WITHOUT_WIDTHS, ("'width'", "did you mean 'widths'?")),
    "key-at-top": ("trianer:\n  max_epochs: 3\n", ("trianer", "did you mean '--trainer.max_epochs'?")),
    "key-of-trainer": ("trainer:\n  max_epoch: 3\n", ("max_epoch", "did you mean '--trainer.max_epochs'?")),
    "class": ("data:\n  class_path: MNITS\n", ("'MNITS'", "did you mean 'MNIST'?")),
    "type": ("trainer:\n  max_epochs: many\n", ("trainer.max_epochs = many", "expected int")),
    "empty": ("", ("bad.yaml",)),
    "not-a-mapping": ("- fit\n- MNIST\n", ("bad.yaml",)),
    "not-yaml": ("model: [\n", ("bad.yaml",)),
}


@pytest.mark.parametrize(("text", "says"), CONFIGS.values(), ids=CONFIGS)
def test_config_file(refused: Refused, tmp_path: Path, text: str, says: tuple[str, ...]) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    _assert_says(refused([*GOOD, "--config", "bad.yaml"]), says)


COMMANDS = {
    "unknown": (
        ["trian"],
        ("'trian'", "choose fit, validate, test, sweep, table, reproduce, analyze, report or completion"),
    ),
    "test-without-checkpoint": (["test", *GOOD[1:3], "--ckpt_path", "nope.ckpt"], ("nope.ckpt", "no such")),
    "figure": (["reproduce", "cornacchia-hypercub"], ("'cornacchia-hypercub'", "cornacchia-hypercube")),
    "scale": (["reproduce", "cornacchia-hypercube", "--scale", "huge"], ("'huge'", "paper")),
    "seeds-zero": (["reproduce", "cornacchia-hypercube", "--seeds", "0"], ("--seeds 0", "at least 1")),
    "seeds-not-a-number": (["reproduce", "cornacchia-hypercube", "--seeds", "two"], ("--seeds", "'two'")),
    "option-of-reproduce": (["reproduce", "cornacchia-hypercube", "--sclae", "ci"], ("--sclae",)),
}


@pytest.mark.parametrize(("args", "says"), COMMANDS.values(), ids=COMMANDS)
def test_command(refused: Refused, args: list[str], says: tuple[str, ...]) -> None:
    _assert_says(refused(args), says)


BELOW_A_FILE = {
    "fit": [*GOOD, "--run_dir", "file/run"],
    "reproduce": ["reproduce", "cornacchia-hypercube", "--out", "file/run"],
}


@pytest.mark.parametrize("args", BELOW_A_FILE.values(), ids=BELOW_A_FILE)
def test_folder_below_a_file(refused: Refused, tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    _assert_says(refused(args), ("cannot write to file/run", "give another folder"))


def test_folder_that_holds_a_run(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("of another run")
    line = refused([*GOOD, "--run_dir", "run"])
    _assert_says(line, ("run_dir = run", "holds a run already", "--ckpt_path last", "another folder"))


def test_folder_that_holds_another_figure(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_text(json.dumps({"figure": "another"}))
    _assert_says(
        refused(["reproduce", "cornacchia-hypercube", "--out", "out"]), ("out holds runs", "give another --out")
    )


def _closed_port() -> int:
    """Return a local port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_missing_data_without_network(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{_closed_port()}/"])
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    (tmp_path / "data").mkdir()
    line = refused([*GOOD, "--data.source", "full", "--data.data_dir", "data"])
    files = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    _assert_says(line, (str(Path("data/MNIST/raw")), *files, "put the official files there", "LNSGD_DATA_DIR"))
    assert not list((tmp_path / "data").iterdir()), "half a download is left"


def _write_tiny_mnist(folder: Path, examples: int) -> None:
    """Write files in the official layout, with fewer examples."""
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind, shape in (("images-idx3", (examples, 28, 28)), ("labels-idx1", (examples,))):
            header = np.array([8 * 256 + len(shape), *shape], ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + bytes(int(np.prod(shape))))


def test_truncated_data(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IdxImageData, "sizes", {"train": 4, "t10k": 4})
    _write_tiny_mnist(tmp_path / "data" / "MNIST" / "raw", 4)
    damaged = tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    line = refused([*GOOD, "--data.source", "full", "--data.data_dir", "data"])
    _assert_says(line, ("train-images-idx3-ubyte", "damaged", "delete it"))


def test_debugging_shows_where_an_error_was_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LNSGD_DEBUG", "1")
    with pytest.raises(ValueError, match="there is no command 'trian'"):
        main(["trian"])


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The output is that in a shell, with Lightning's log lines and warnings."""
    environment = {name: value for name, value in os.environ.items() if name != "LNSGD_DEBUG"}
    command = [sys.executable, "-c", "from lnsgd.cli import main; main()", *GOOD, "--model.label_noise.p", "1.5"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert ended.stdout == ""
    _assert_says(_error_line(ended.stderr), ("p = 1.5", "[0, 1]"))
    assert not list(tmp_path.iterdir())
