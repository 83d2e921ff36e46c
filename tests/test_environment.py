"""``LNSGD_WATCH`` adds callbacks to the Trainers of an unchanged program, and costs nothing if it is not set."""

import importlib
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lnsgd.callbacks import ActiveNeurons, HessianTrace
from lnsgd.environment import callbacks_from_environment
from lnsgd.measuring import MEASURERS
from tests.callbacks.foreign_project import PACKAGES, loader, package, project, rows

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Let the entry points of ``pyproject.toml`` be those of the installed package."""
    metadata = tmp_path / "site" / "lnsgd-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lnsgd\nVersion: 0\n")
    groups = PROJECT["entry-points"].items()
    lines = [f"[{group}]\n" + "\n".join(f"{n} = {v}" for n, v in entries.items()) for group, entries in groups]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(metadata.parent))


@pytest.mark.parametrize("name", PACKAGES)
def test_an_unchanged_program_is_measured(tmp_path, monkeypatch, installed, name):
    monkeypatch.setenv("LNSGD_WATCH", "active_neurons, hessian_trace")
    trainer = importlib.import_module(name).Trainer(
        accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, logger=False, enable_progress_bar=False
    )
    assert [type(c) for c in trainer.callbacks if c.__module__.startswith("lnsgd")] == [ActiveNeurons, HessianTrace]
    package.use(name)
    trainer.fit(project(), loader(), loader(13, seed=2))
    package.use(PACKAGES[0])
    (table,) = tmp_path.rglob("measures.parquet")
    assert {key[1] for key in rows(table.parent, 5)} == {"active_count", "active_fraction", "hessian_trace"}


def test_unknown_names_are_refused_with_the_allowed_ones(monkeypatch):
    monkeypatch.setenv("LNSGD_WATCH", "active_neurons,activ_neurons")
    with pytest.raises(ValueError, match="LNSGD_WATCH=active_neurons,activ_neurons: ") as error:
        callbacks_from_environment()
    assert "\n" not in str(error.value) and all(name in str(error.value) for name in MEASURERS)


@pytest.mark.parametrize("value", [None, "", " , "])
def test_nothing_is_added_and_imported_if_it_is_not_set(value):
    entries = [e for group in ("lightning.pytorch", "pytorch_lightning") for e in _entries(group)]
    assert len(entries) == 2
    code = "import sys, lnsgd.environment as e; print(e.callbacks_from_environment(), 'torch' in sys.modules)"
    environment = {} if value is None else {"LNSGD_WATCH": value}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.stdout.strip() == "[] False", run.stderr


def _entries(package_name):
    group = f"{package_name}.callbacks_factory"
    found = [EntryPoint(name, value, group) for name, value in PROJECT["entry-points"][group].items()]
    assert all(entry.load() is callbacks_from_environment for entry in found)
    return found
