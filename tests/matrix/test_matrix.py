"""Every measure in every setting is right, or refused with a reason; the guide says which."""

import pytest

from tests.matrix.cells import REFUSED, Cell, cells_of
from tests.matrix.page import PAGE, page
from tests.matrix.settings import MEASURES, SETTINGS

pytestmark = pytest.mark.slow

_CELLS: dict[str, dict[str, Cell]] = {}


@pytest.mark.parametrize("setting", SETTINGS)
def test_measures_are_right_or_refused(setting: str) -> None:
    _CELLS[setting] = cells = cells_of(setting)
    assert {name: cell.wrong for name, cell in cells.items() if cell.wrong} == {}
    refused = REFUSED.get(setting, {})
    assert all(part in cells[name].refusal for name, part in refused.items())
    assert {name for name, cell in cells.items() if cell.refusal} == set(refused)
    assert set(cells) == set(MEASURES)


def test_the_guide_shows_what_was_found() -> None:
    if set(_CELLS) != set(SETTINGS):
        pytest.skip("needs all cells of this process")
    assert PAGE.read_text() == page(_CELLS)
