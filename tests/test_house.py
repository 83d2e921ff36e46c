"""The import ladder: each room imports only from rooms above it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From top to bottom. A room is a module or a folder of ``lnsgd``; rooms of one line do not import each other,
# but a folder's files may import one another. ``lnsgd`` stands for the package's own ``__init__``.
LADDER: tuple[tuple[str, ...], ...] = (
    ("lnsgd", "messages", "run_errors", "numbers", "schedules", "stop_signals", "untrusted", "writing"),
    ("rng",),
    ("label_noise",),
    ("streams",),
    ("losses",),
    ("models",),
    ("measures",),
    ("replicas",),
    ("data",),
    ("run_folder",),
    ("loggers", "checkpoints", "processes", "run_choice"),
    ("modules",),
    ("callbacks",),
    ("training",),  # runs one config: what sweeps and figures are made of
    ("sweep",),
    ("analysis",),
    ("figures",),
    ("report",),
    ("cli",),
)

# These know nothing of Lightning.
WITHOUT_LIGHTNING = ("rng", "label_noise", "streams", "losses", "models", "measures")
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}

RUNG = {room: rung for rung, rooms in enumerate(LADDER) for room in rooms}


def module_name(path: Path, root: Path = ROOT) -> str:
    """``callbacks/`` at the top of the repository is the package ``lnsgd.callbacks``."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[0] == "callbacks":
        parts.insert(0, "lnsgd")
    return ".".join(parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return "lnsgd" if len(parts) == 1 or parts[1] == "__init__" else parts[1]


def imports(source: str, module: str) -> Iterator[str]:
    """Full names of everything that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # ``from lnsgd import rng`` imports a module, ``from lnsgd.rng import generator`` a name in one.
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def rooms_imported(source: str, module: str) -> set[str]:
    inside = [name for name in imports(source, module) if name.split(".")[0] == "lnsgd"]
    rooms = {room_of(name) for name in inside}
    # ``from lnsgd import __version__``
    rooms = {"lnsgd" if room.startswith("__") else room for room in rooms}
    return rooms - {room_of(module)}


def violations(source: str, module: str) -> list[str]:
    own = RUNG[room_of(module)]
    return sorted(room for room in rooms_imported(source, module) if room not in RUNG or RUNG[room] >= own)


# The link lnsgd/callbacks is not followed: its files are found once, below callbacks/.
FILES = sorted(
    p for top in ("lnsgd", "callbacks") for p in (ROOT / top).rglob("*.py") if "lnsgd/callbacks" not in str(p)
)
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def test_all_rooms_are_seen() -> None:
    assert {"rng", "measures", "callbacks", "figures", "cli"} <= {room_of(module_name(path)) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_file_has_its_place_on_the_ladder(path: Path) -> None:
    assert room_of(module_name(path)) in RUNG


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_only_from_rooms_above(path: Path) -> None:
    assert violations(path.read_text(), module_name(path)) == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_lightning_stays_out_of_the_upper_rooms(path: Path) -> None:
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
    "import": "import lnsgd.figures.claims",
    "from-package": "from lnsgd import callbacks",
    "from-module": "from lnsgd.training import train",
    "relative": "from ..modules import Classifier",
    "relative-package": "from .. import modules",
    "in-a-function": "def f():\n    from lnsgd.cli import main",
    "unknown-room": "import lnsgd.cellar",
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_a_break_is_noticed(source: str) -> None:
    assert violations(source, "lnsgd.measures.estimate") != []


ALLOWED = {
    "room-above": "from lnsgd import rng\nfrom lnsgd.models.mlp import MLP",
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
    """Nor does what they import; ``callbacks`` aside, lnsgd is of use without Lightning."""
    loaded = _loaded_after("import " + ", ".join(f"lnsgd.{room}" for room in WITHOUT_LIGHTNING))
    assert "torch" in loaded
    assert not loaded & LIGHTNING
