"""Commands and code of README and guide run as written; links and files exist; verdicts agree with the results."""

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import wandb

from lnsgd.cli import main
from lnsgd.figures.framework import command
from lnsgd.figures.framework.figure import Figure, Scale
from lnsgd.records.claims import count_claims
from lnsgd.records.verdicts import FAILS
from lnsgd.sweep import run as sweep_run
from lnsgd.sweep.grid import Sweep, read_sweep
from scripts import write_summaries

ROOT = Path(__file__).parents[1]
GUIDE = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "guide").glob("*.md"))
PAGES = ["README.md", *GUIDE]

# What makes a training command end after a moment; otherwise it is run as it stands.
QUIET = ["--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"]
BRIEF = ["--trainer.limit_train_batches", "2", *QUIET]
FEW_IMAGES = ["--data.subset", "64", "--data.val_size", "50"]
BRIEF_REPLICAS = ["--trainer.max_steps", "2", "--data.subset", "100", *QUIET]


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def commands(page: str) -> list[str]:
    lines = [line for block in blocks("console", page) for line in block.splitlines()]
    return [line.removeprefix("$ ").split("#")[0].strip() for line in lines if line.startswith("$ ")]


def with_commands(program: str) -> list[str]:
    return [page for page in PAGES if any(line.startswith(f"{program} ") for line in commands(page))]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Make a folder that looks like a checkout to the commands, so that nothing is written to the real one."""
    for name in ("configs", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(sweep_run, "read_sweep", lambda path: brief_sweep(read_sweep(path)))
    monkeypatch.setattr(command, "FIGURES", {name: brief(figure) for name, figure in command.FIGURES.items()})
    yield tmp_path
    wandb.teardown()  # its service stays in this folder, and would write the runs of later tests here


def brief(figure: Figure) -> Figure:
    """Return the figure with runs that end after a moment, whatever their arms say."""

    def last(arm: str, scale: Scale) -> list[str]:
        return [*scale.arms.get(arm, ()), *BRIEF_REPLICAS]

    scales = {
        name: dataclasses.replace(scale, seeds=1, arms={arm: last(arm, scale) for arm in figure.arms})
        for name, scale in figure.scales.items()
    }
    return dataclasses.replace(figure, scales=scales)


def brief_sweep(sweep: Sweep) -> Sweep:
    """Return the sweep with one cell, which ends after a moment."""
    options = {**sweep.options, "trainer.max_steps": 2, "trainer.limit_val_batches": 1}
    return dataclasses.replace(sweep, options=options, axes=tuple(axis[:1] for axis in sweep.axes))


def brevity(args: list[str]) -> list[str]:
    """Return options that end a ``fit`` after a moment."""
    if any(arg.startswith("--replicas") for arg in args) or "configs/mnist_replicas.yaml" in args:
        return BRIEF_REPLICAS
    few = FEW_IMAGES if any("cifar10" in arg for arg in args) else []
    return [*few, *BRIEF, *([] if "--ckpt_path" in args else ["--trainer.max_epochs", "1"])]


@pytest.mark.parametrize(
    "page",
    with_commands("lnsgd"),
)
@pytest.mark.slow
def test_commands_run_in_order(checkout, full_data, full_cifar10, page):
    tour = [line for line in commands("README.md") if line.startswith("lnsgd fit ")]  # pages use its runs
    for line in [*(tour if page in GUIDE else []), *commands(page)]:
        if line.startswith("lnsgd "):
            args = shlex.split(line)[1:]
            main([*args, *(brevity(args) if args[0] == "fit" else [])])


def test_the_tour_is_there():
    verbs = [shlex.split(line)[1] for line in commands("README.md") if line.startswith("lnsgd ")]
    assert list(dict.fromkeys(verbs)) == ["fit", "analyze", "sweep", "table", "reproduce", "report"]


@pytest.mark.parametrize("target", [line.split()[1] for line in commands("README.md") if line.startswith("make ")])
def test_make_targets_exist(target):
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks("python", page)])
def test_python_code_runs(checkout, page):
    exec(compile("\n".join(blocks("python", page)), page, "exec"), {})


@pytest.mark.parametrize(
    "document",
    [
        *PAGES,
        *("CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/results/README.md"),
        *("lnsgd/data/sample/README.md", "examples/README.md"),
    ],
)
def test_relative_links_lead_somewhere(document):
    path = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("document", [*PAGES, "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md"])
def test_files_named_on_a_page_exist(document):
    """A path of the repository in backticks, such as `tests/hostile/`, or the name of a test file alone."""
    named = re.findall(
        r"`((?:lnsgd|callbacks|configs|docs|examples|scripts|tests)/[\w./-]+)`", (ROOT / document).read_text()
    )
    tests = re.findall(r"`(test_\w+\.py)`", (ROOT / document).read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert [name for name in tests if not list((ROOT / "tests").rglob(name))] == []


@pytest.mark.parametrize("path", write_summaries.PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_counts_of_claims_are_those_of_the_results(path):
    records = write_summaries.kept_claims()
    page = path.read_text()
    assert page == write_summaries.rewritten(page, records), "run: python scripts/write_summaries.py"
    for figure, record in records.items():
        (row,) = re.findall(rf"^\| \[{figure}\]\(.*$", page, re.M)
        assert f"| {count_claims(record.claims)} |" in row
    assert "In all: <!-- claims -->" in page


def test_what_fails_is_said_in_the_front_door():
    page = (ROOT / "README.md").read_text()
    for figure, record in write_summaries.kept_claims().items():
        (said,) = re.findall(rf"^\| \[{figure}\]\(.*\|([^|]*)\|$", page, re.M)
        if any(claim.verdict == FAILS for claim in record.claims):
            assert said.strip(), figure
