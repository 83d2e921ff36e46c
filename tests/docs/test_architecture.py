"""The picture of the rooms is what the code's imports give."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.draw_rooms import LADDER, ROOMS, all_imports, draw

ROOT = Path(__file__).parents[2]


def test_picture_of_the_rooms_is_up_to_date() -> None:
    committed = (ROOT / "docs" / "rooms.svg").read_text(encoding="utf-8")
    assert committed == draw(all_imports()), "run: python scripts/draw_rooms.py"


def test_picture_has_a_dot_for_each_import() -> None:
    pairs = {("cli", "rng"), ("rng", "lnsgd"), ("cli", "lnsgd")}
    picture = ElementTree.fromstring(draw(pairs))
    titles = {title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")}
    assert titles == {f"{room} imports from {other}" for room, other in pairs}
    names = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert all(names.count(room) == 2 for room in ROOMS)


def test_contributing_lists_the_rooms_in_their_order() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().split("| room | task |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [tuple(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table.splitlines()]
    package = "lnsgd"  # its `__init__` has the version alone
    assert rows == [tuple(room for room in rung if room != package) for rung in LADDER]


STEPS = re.findall(r"^\d\. (.+?)(?=\n\d\. |\n\n|\Z)", (ROOT / "docs" / "architecture.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("step", STEPS, ids=[step[:40] for step in STEPS])
def test_names_in_a_step_stand_in_the_files_that_it_links_to(step: str) -> None:
    paths = [ROOT / "docs" / link for link in re.findall(r"\]\(([^)#]+)\)", step)]
    code = "\n".join(path.read_text() for path in paths if path.suffix == ".py")
    names = [name for name in re.findall(r"`([^`]+)`", step) if re.fullmatch(r"[A-Za-z_]\w*", name)]
    assert [name for name in names if not re.search(rf"\b(class|def) {name}\b|^{name} = ", code, re.M)] == []


def test_every_journey_has_steps() -> None:
    assert len(STEPS) > 20
    assert sum("](" in step for step in STEPS) > 20
