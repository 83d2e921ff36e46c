"""Each room of the package imports only from rooms before it in the ladder of ``scripts/draw_rooms.py``."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.draw_rooms import LADDER, imports, module_name, room_of, rooms_imported, source_files

ROOT = Path(__file__).parents[1]

# These know nothing of Lightning.
WITHOUT_LIGHTNING = ("rng", "label_noise", "streams", "losses", "models", "measures", "measuring", "plain")
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}

RUNG = {room: rung for rung, rooms in enumerate(LADDER) for room in rooms}


def violations(source: str, module: str) -> list[str]:
    own = RUNG[room_of(module)]
    return sorted(room for room in rooms_imported(source, module) if room not in RUNG or RUNG[room] >= own)


FILES = source_files()
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def test_all_rooms_are_seen() -> None:
    assert {"rng", "measures", "callbacks", "figures", "cli"} <= {room_of(module_name(path)) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_file_has_its_place_on_the_ladder(path: Path) -> None:
    assert room_of(module_name(path)) in RUNG


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_only_from_rooms_before_its_own(path: Path) -> None:
    assert violations(path.read_text(), module_name(path)) == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_lightning_stays_out_of_the_first_rooms(path: Path) -> None:
    if room_of(module_name(path)) in WITHOUT_LIGHTNING:
        packages = {name.split(".")[0] for name in imports(path.read_text(), module_name(path))}
        assert not packages & LIGHTNING


SOURCES = [p for top in ("lnsgd", "callbacks", "scripts", "tests") for p in sorted((ROOT / top).rglob("*.py"))]


def test_nobody_imports_the_folder_callbacks_itself() -> None:
    """The import name is ``lnsgd.callbacks`` everywhere; ``callbacks`` is found only in a checkout."""
    wrong = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if any(name.split(".")[0] == "callbacks" for name in imports(path.read_text(), module_name(path)))
    ]
    assert wrong == []


BROKEN = {
    "import": "import lnsgd.figures.framework.claims",
    "from-package": "from lnsgd import callbacks",
    "from-module": "from lnsgd.training.cli import train",
    "relative": "from ..modules import Classifier",
    "relative-package": "from .. import modules",
    "in-a-function": "def f():\n    from lnsgd.cli import main",
    "unknown-room": "import lnsgd.cellar",
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_a_break_is_noticed(source: str) -> None:
    assert violations(source, "lnsgd.measures.estimate") != []


ALLOWED = {
    "room-before": "from lnsgd import rng\nfrom lnsgd.models.mlp import MLP",
    "same-room": "from lnsgd.measures import evaluation\nfrom . import sites",
    "elsewhere": "import torch\nfrom callbacks_of_others import x",
    "version": "from lnsgd import __version__",
}


@pytest.mark.parametrize("source", ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed_passes(source: str) -> None:
    assert violations(source, "lnsgd.measures.estimate") == []


def _loaded_after(statement: str) -> set[str]:
    """Top-level packages in memory after an import, in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(ended.stdout.split())


@pytest.mark.parametrize("statement", ["import lnsgd", "import lnsgd.cli"])
def test_import_is_light(statement: str) -> None:
    loaded = _loaded_after(statement)
    assert "lnsgd" in loaded
    assert not loaded & {"torch", "numpy", "pandas", "matplotlib", "wandb", *LIGHTNING}


def test_measures_do_not_load_lightning() -> None:
    """Nor does what they import, so that lnsgd is of use without Lightning."""
    loaded = _loaded_after("import " + ", ".join(f"lnsgd.{room}" for room in WITHOUT_LIGHTNING))
    assert "torch" in loaded
    assert not loaded & LIGHTNING


def test_measuring_in_a_plain_program_does_not_load_lightning() -> None:
    loaded = _loaded_after("import lnsgd; lnsgd.measure, lnsgd.Watch")
    assert "torch" in loaded
    assert not loaded & LIGHTNING
