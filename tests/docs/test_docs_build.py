"""``make docs``: the pages build without a warning, every public name has one, and they load nothing from elsewhere."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

import pytest

from tests.docs.test_documented import DOCUMENTED, ROOMS

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("sphinx") is None, reason="needs the group `docs`: make docs installs it"),
]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Copy the sources of the pages, so that nothing is written to the real checkout."""
    generated = shutil.ignore_patterns("generated")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=generated)
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CITATION.cff", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("callbacks", "configs", "examples", "lnsgd", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_the_docs(checkout):  # in one test, for one build
    pages = checkout / "html"
    build = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--builder", "html"]
    done = subprocess.run([*build, checkout / "docs", pages], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    every_public_name_has_a_page(pages)
    the_front_page_is_the_readme(pages)
    help_texts_are_those_of_the_command(pages)
    nothing_is_loaded_from_elsewhere(pages)


def every_public_name_has_a_page(pages: Path) -> None:
    described = {}
    for page in (pages / "api" / "generated").glob("*.html"):
        for name in re.findall(r'<dt class="sig[^"]*" id="([^"]+)"', page.read_text()):
            described.setdefault(name, []).append(page.name)
    names = {home(value) or name for name, value in DOCUMENTED.items()}
    assert [name for name in names if len(described.get(name, [])) != 1] == []
    assert len({described[name][0].lower() for name in names}) == len(names)  # also where case is ignored


def home(value: type | FunctionType) -> str | None:
    """Return the public name of a class or function in the room that defines it, which other rooms may export too."""
    rooms = [room for room in ROOMS if f"{value.__module__}.".startswith(f"{room}.")]
    names = [f"{room}.{value.__name__}" for room in rooms]
    return min((name for name in names if DOCUMENTED.get(name) is value), key=len, default=None)


def the_front_page_is_the_readme(pages: Path) -> None:
    front = (pages / "index.html").read_text()
    assert "<h1>lnsgd" in front
    assert (pages / re.search(r'<img[^>]* src="([^"]+)"', front)[1]).is_file()


def help_texts_are_those_of_the_command(pages: Path) -> None:
    shown = (pages / "cli.html").read_text()
    assert "--trainer.max_epochs" in shown  # Lightning's parser
    assert "--dry-run" in shown  # of a sweep
    assert "\b" not in shown


def nothing_is_loaded_from_elsewhere(pages: Path) -> None:
    loading = re.compile(r'<(?:script|img|iframe)\b[^>]*\bsrc="https?:[^"]*"|<link\b[^>]*\bhref="https?:[^"]*"')
    found = {page.name: loading.findall(page.read_text()) for page in pages.rglob("*.html")}
    assert len(found) > len(DOCUMENTED)
    assert {name: loads for name, loads in found.items() if loads} == {}
    styles = [path.read_text() for path in (pages / "_static").rglob("*.css")]
    assert not [style for style in styles if re.search(r"@import|url\(['\"]?https?:", style)]
