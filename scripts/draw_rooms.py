"""Draw the rooms of the package and their imports, as the code has them.

    python scripts/draw_rooms.py [--out docs/rooms.svg]

`LADDER` is the one definition of which room may import which; ``tests/test_house.py`` holds the code to it, and
``tests/docs/test_architecture.py`` compares the committed picture with what this program draws.
"""

import argparse
import ast
from collections.abc import Iterator, Set
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A room is a module or a folder of ``lnsgd``, and may import from the rungs before its own. Rooms of one rung do not
# import each other; the files of one room may. ``lnsgd`` stands for the package's own ``__init__``.
LADDER: tuple[tuple[str, ...], ...] = (
    ("lnsgd", "console", "schedules", "compat"),
    ("rng",),
    ("lightning",),
    ("label_noise",),
    ("streams",),
    ("losses",),
    ("models",),
    ("measures",),
    ("measuring",),
    ("untrusted",),
    ("runs",),
    ("records",),
    ("plain",),
    ("integrations",),
    ("loggers",),
    ("data",),
    ("modules",),
    ("replicas",),
    ("callbacks",),
    ("environment",),
    ("training",),  # runs one config: what sweeps and figures are made of
    ("sweep",),
    ("analysis",),
    ("figures",),
    ("report",),
    ("completion",),
    ("cli",),
)
ROOMS = tuple(room for rung in LADDER for room in rung)

_CELL = 24
_LEFT = 120
_TOP = 16
_FOOT = 46
_STYLE = """\
svg { font: 13px system-ui, sans-serif; }
.paper { fill: #ffffff; stroke: #d0d7de; }
.grid { stroke: #d8dee4; }
.band { fill: #f3f5f8; }
.self { fill: #c9d1d9; }
.dot { fill: #1f6feb; }
text { fill: #1f2328; }
.faint { fill: #656d76; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117; stroke: #30363d; }
  .grid { stroke: #21262d; }
  .band { fill: #161b22; }
  .self { fill: #484f58; }
  .dot { fill: #58a6ff; }
  text { fill: #e6edf3; }
  .faint { fill: #9198a1; }
}"""


def source_files(root: Path = ROOT) -> list[Path]:
    """Find the files of the package. The link ``lnsgd/callbacks`` is not followed, so that each is found once."""
    link = root / "lnsgd" / "callbacks"
    return sorted(
        path for top in ("lnsgd", "callbacks") for path in (root / top).rglob("*.py") if link not in path.parents
    )


def module_name(path: Path, root: Path = ROOT) -> str:
    """Name a file as it is imported: ``callbacks/`` at the top of the repository is ``lnsgd.callbacks``."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[0] == "callbacks":
        parts.insert(0, "lnsgd")
    return ".".join(parts)


def room_of(module: str) -> str:
    """Name the room of a module; ``python -m lnsgd`` is the command."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] == "__init__":
        return "lnsgd"
    return "cli" if parts[1] == "__main__" else parts[1]


def imports(source: str, module: str) -> Iterator[str]:
    """Yield the full name of everything that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # ``from lnsgd import rng`` imports a module, ``from lnsgd.rng import generator`` a name in one.
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def rooms_imported(source: str, module: str) -> set[str]:
    """Name the other rooms from which a module imports."""
    inside = [name for name in imports(source, module) if name.split(".")[0] == "lnsgd"]
    rooms = {room_of(name) for name in inside}
    # ``from lnsgd import __version__``
    rooms = {"lnsgd" if room.startswith("__") else room for room in rooms}
    return rooms - {room_of(module)}


def all_imports(root: Path = ROOT) -> set[tuple[str, str]]:
    """Find the pairs of rooms of which the first imports from the second."""
    modules = {module_name(path, root): path.read_text(encoding="utf-8") for path in source_files(root)}
    return {(room_of(name), room) for name, source in modules.items() for room in rooms_imported(source, name)}


def draw(pairs: Set[tuple[str, str]], rooms: tuple[str, ...] = ROOMS) -> str:
    """Draw a triangle of dots, one where the room of a row imports from the room of a column.

    Args:
        pairs: Importing and imported room of each dot.
        rooms: The rooms, in the order of the ladder.

    Returns:
        The text of an SVG file, the same for the same arguments.
    """
    side = len(rooms) * _CELL
    width, height = _LEFT + side + 100, _TOP + side + _FOOT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="Which room of lnsgd imports from which">',
        f"<style>\n{_STYLE}\n</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
    ]
    for row, room in enumerate(rooms):
        lines += _draw_row(row, room, pairs, rooms)
    lines += [
        f'<text class="faint" x="{_LEFT}" y="{height - 24}">A dot: the room of the row imports from the room of the '
        "column.</text>",
        f'<text class="faint" x="{_LEFT}" y="{height - 8}">All dots lie left of the diagonal: no room imports from one '
        "further down.</text>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _draw_row(row: int, room: str, pairs: Set[tuple[str, str]], rooms: tuple[str, ...]) -> list[str]:
    top, middle = _TOP + row * _CELL, _TOP + row * _CELL + _CELL // 2
    right = _LEFT + (row + 1) * _CELL
    lines = []
    if row % 2:
        lines.append(f'<rect class="band" x="8" y="{top}" width="{right - 8}" height="{_CELL}"/>')
    lines += [
        f'<path class="grid" d="M{right - _CELL // 2} {top + _CELL}V{_TOP + len(rooms) * _CELL}"/>',
        f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{room}</text>',
        f'<rect class="self" x="{right - _CELL + 7}" y="{top + 7}" width="{_CELL - 14}" height="{_CELL - 14}" rx="2"/>',
        f'<text class="faint" x="{right + 2}" y="{middle + 4}">{room}</text>',
    ]
    for column, other in enumerate(rooms):
        if (room, other) in pairs:
            lines.append(
                f'<circle class="dot" cx="{_LEFT + column * _CELL + _CELL // 2}" cy="{middle}" r="5">'
                f"<title>{room} imports from {other}</title></circle>"
            )
    return lines


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Draw which room of lnsgd imports from which.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "rooms.svg", help="the picture")
    out = parser.parse_args().out
    out.write_text(draw(all_imports()), encoding="utf-8")
    print(f"Picture: {out}")


if __name__ == "__main__":
    main()
