"""Every YAML below configs/ builds and trains one step."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lnsgd.cli import main
from lnsgd.data import CIFAR10
from lnsgd.data.mnist import IdxImageData
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep.config_reader import as_arguments, fit_arguments
from lnsgd.sweep.grid import read_sweep
from tests.data.cifar_files import write_binary

CONFIGS = Path(__file__).parents[1] / "configs"
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))
WANDB_SWEEPS = sorted((CONFIGS / "sweeps" / "wandb").glob("*.yaml"))
FILES = sorted({*CONFIGS.rglob("*.yaml")} - {*SWEEPS, *WANDB_SWEEPS})
NAMES = [str(path.relative_to(CONFIGS)) for path in FILES]

# Partial configs are meant to be added to an experiment; this is the one they are tried with.
EXPERIMENT = CONFIGS / "mnist.yaml"

ONE_STEP = [
    *("--data.subset", "64", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]


SMALL_NET = ["--model.net.widths", "[784, 8, 10]"]
RESNET = ["--model.net", "lnsgd.models.ResNet20", "--model.net.channels", "1", "--model.net.width", "2"]

# For partial configs of two processes: without measures, and one with batch normalization to synchronize.
NETS = {
    "trainer/ddp_cpu.yaml": [*SMALL_NET, "--trainer.callbacks", "[]"],
    "trainer/ddp.yaml": [
        *(*RESNET, "--trainer.accelerator", "cpu", "--trainer.devices", "2"),
        *("--trainer.callbacks", "[]", "--data.eval_batch_size", "64"),  # 10,000 images would take it minutes
    ],
}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a folder of its own, where W&B keeps everything local."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for kind in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / "wandb-home"))
    yield
    import wandb

    wandb.teardown()


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def data_class(path: Path) -> str:
    data = read(path if "data" in read(path) else EXPERIMENT)["data"]
    return data if isinstance(data, str) else data["class_path"]


def data_options(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return options that need no download."""
    name = data_class(path).rpartition(".")[2]
    if name == "MNIST":
        return ["--data.source", "sample"]
    if name == "FashionMNIST":
        monkeypatch.setattr(IdxImageData, "sizes", {"train": 100, "t10k": 50})
        write_idx(folder / name / "raw", IdxImageData.sizes)
        return ["--data.data_dir", str(folder)]
    if name == "CIFAR10":
        monkeypatch.setattr(CIFAR10, "examples_per_file", 20)
        write_cifar10(folder / "cifar-10-batches-bin")
        return ["--data.data_dir", str(folder), "--data.val_size", "20", "--data.subset", "16"]
    if name in ("GaussianInputs", "Hypercube"):
        return []
    if name == "StandardBasis":  # it has 30 examples
        return ["--data.subset", "20"]
    if name == "MatrixSensing":  # 2,500 matrices take 100 MB
        return ["--data.train_size", "64", "--data.test_size", "8"]
    if name == "SphereInputs":  # it has a few examples
        return ["--data.subset", "2"]
    if name == "Points1D":  # it has 12
        return ["--data.subset", "10"]
    if name == "SinglePoint":
        return ["--data.subset", "1"]
    raise AssertionError(f"{path.name}: say here where test data for {name} comes from")


def write_idx(folder: Path, sizes: dict[str, int]) -> None:
    """Write random images of ten classes in MNIST's official layout."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, n in sizes.items():
        images, labels = draw.integers(0, 256, (n, 28, 28), np.uint8), draw.integers(0, 10, n, np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = np.array([8 * 256 + values.ndim, *values.shape], ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + values.tobytes())


def write_cifar10(folder: Path) -> None:
    """Write random images of ten classes in CIFAR-10's binary layout."""
    draw, n = np.random.default_rng(0), CIFAR10.examples_per_file
    for name in (*CIFAR10.batches["train"], *CIFAR10.batches["test"]):
        write_binary(folder, name, draw.integers(0, 256, (n, 3072), np.uint8), draw.integers(0, 10, n).tolist())


def run(path: Path, args: list[str]) -> None:
    if read(path).get("trainer", {}).get("devices", 1) == 1:
        main(args)
        return
    # The processes of "ddp" start the command anew, so it must be lnsgd and not pytest.
    command = [str(Path(sys.executable).with_name("lnsgd")), *args]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_there_are_configs() -> None:
    assert EXPERIMENT in FILES


# Each takes seconds and differs little from another file.
SLOW = {
    "trainer/ddp.yaml",
    "cifar10_resnet20_noise.yaml",
    "cifar10_resnet20_smoothing.yaml",
    "figures/beyond-trace-mnist-squared.yaml",
    "figures/cornacchia-sparsity-curve-mnist.yaml",
}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * (name in SLOW), id=name) for path, name in zip(FILES, NAMES)],
)
def test_one_step(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, options = [], [*ONE_STEP, *data_options(path, tmp_path / "data", monkeypatch), "--run_dir", "run"]
    if "model" not in read(path):
        base = ["--config", str(EXPERIMENT)]
        options += NETS.get(NAMES[FILES.index(path)], SMALL_NET)  # the experiment itself is tried on its own
    run(path, ["fit", *base, "--config", str(path), *options])
    if read(path).get("trainer", {}).get("fast_dev_run"):
        assert not Path("run").exists()
    else:
        assert '"steps": 1,' in RunFolder(Path("run")).finished.read_text()


def try_cell(base: Path, args: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of one cell."""
    main(["fit", *args, *ONE_STEP, *data_options(base, folder, monkeypatch), "--run_dir", "run"])
    assert '"steps": 1,' in RunFolder(Path("run")).finished.read_text()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_sweep_is_planned_and_its_first_cell_trains(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = read_sweep(path)
    main(["sweep", str(path), "--dry-run"])
    assert f"{sweep.name}: {len(sweep)} cells, 0 complete" in " ".join(capsys.readouterr().out.split())
    assert not Path("runs").exists()
    first = {name: value for axis in sweep.axes for name, value in axis[0].items()}
    try_cell(sweep.base[0], fit_arguments(sweep, first), tmp_path / "data", monkeypatch)


@pytest.mark.parametrize("path", WANDB_SWEEPS, ids=lambda path: path.name)
def test_wandb_sweep_has_the_cells_of_its_namesake_and_trains(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its grid is that of the sweep of the same name, and what an agent would run for the first point trains."""
    given, sweep = read(path), read_sweep(CONFIGS / "sweeps" / path.name)
    grid = {name: parameter["values"] for name, parameter in given["parameters"].items()}
    assert grid == {name: [point[name] for point in axis] for axis in sweep.axes for name in axis[0]}
    assert (given["program"], given["method"], given["command"][:2]) == ("lnsgd", "grid", ["${program}", "fit"])
    command = [str(CONFIGS.parent / part) if part.endswith(".yaml") else part for part in given["command"][2:-1]]
    assert given["command"][-1] == "${args}"
    assert [part for part in command if part.startswith("--trainer")] == as_arguments(sweep.options)
    point = [f"--{name}={values[0]}" for name, values in grid.items()]  # as wandb writes ${args}
    try_cell(sweep.base[0], [*command, *point], tmp_path / "data", monkeypatch)


@pytest.mark.parametrize("path", [*FILES, *SWEEPS, *WANDB_SWEEPS], ids=lambda path: str(path.relative_to(CONFIGS)))
def test_starts_with_a_comment_that_says_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("# ")
