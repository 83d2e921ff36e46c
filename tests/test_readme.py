"""The README's commands and code run as written, and its links lead somewhere."""

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import wandb

from lnsgd.cli import main
from lnsgd.figures import command
from lnsgd.figures.figure import Figure, Scale
from lnsgd.sweep import run as sweep_run
from lnsgd.sweep.grid import Sweep, read_sweep

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# What makes a training command end after a moment; otherwise it is run as it stands.
QUIET = ["--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"]
BRIEF = ["--trainer.limit_train_batches", "2", *QUIET]
FEW_IMAGES = ["--data.subset", "64", "--data.val_size", "50"]
BRIEF_REPLICAS = ["--trainer.max_steps", "2", "--data.subset", "100", *QUIET]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line.removeprefix("$ ").split("#")[0].strip() for line in lines if line.startswith("$ ")]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like a checkout to the commands, so that nothing is written to the real one."""
    for name in ("configs", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(sweep_run, "read_sweep", lambda path: brief_sweep(read_sweep(path)))
    monkeypatch.setattr(command, "FIGURES", {name: brief(figure) for name, figure in command.FIGURES.items()})
    yield tmp_path
    wandb.teardown()  # its service stays in this folder, and would write the runs of later tests here


def brief(figure: Figure) -> Figure:
    """The same figure; its runs are over in a moment, whatever their arms say."""

    def last(arm: str, scale: Scale) -> list[str]:
        return [*scale.arms.get(arm, ()), *BRIEF_REPLICAS]

    scales = {
        name: dataclasses.replace(scale, seeds=1, arms={arm: last(arm, scale) for arm in figure.arms})
        for name, scale in figure.scales.items()
    }
    return dataclasses.replace(figure, scales=scales)


def brief_sweep(sweep: Sweep) -> Sweep:
    """The same sweep with one cell, which is over in a moment."""
    options = {**sweep.options, "trainer.max_steps": 2, "trainer.limit_val_batches": 1}
    return dataclasses.replace(sweep, options=options, axes=tuple(axis[:1] for axis in sweep.axes))


def brevity(args: list[str]) -> list[str]:
    """Options that end a ``fit`` after a moment."""
    if any(arg.startswith("--replicas") for arg in args) or "configs/mnist_replicas.yaml" in args:
        return BRIEF_REPLICAS
    few = FEW_IMAGES if any("cifar10" in arg for arg in args) else []
    return [*few, *BRIEF, *([] if "--ckpt_path" in args else ["--trainer.max_epochs", "1"])]


def test_commands_run_in_order(checkout, full_data, full_cifar10):
    training = [line for line in commands() if line.startswith("lnsgd ")]
    assert len(training) >= 9
    for line in training:
        args = shlex.split(line)[1:]
        if args[0] == "fit":
            args += brevity(args)
        main(args)
    assert (checkout / "runs/mnist/checkpoints/last.ckpt").exists()


@pytest.mark.parametrize("target", [line.split()[1] for line in commands() if line.startswith("make ")])
def test_make_targets_exist(target):
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_python_code_runs(checkout, capsys):
    exec(compile("\n".join(blocks("python")), "README.md", "exec"), {})
    assert re.search(r"\S+ ± \S+ by ggn, 500 examples", capsys.readouterr().out)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "lnsgd/data/sample/README.md"])
def test_relative_links_lead_somewhere(document):
    path = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
