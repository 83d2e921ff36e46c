"""The page of the matrix, ``docs/guide/matrix.md``; ``python -m tests.matrix.page`` writes it anew."""

from collections.abc import Mapping
from pathlib import Path

from tests.matrix.cells import REFUSED, Cell, cells_of
from tests.matrix.settings import MEASURES, SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "matrix.md"

_HEAD = """# Where each measure is right

Each cell is a test: a small network is trained in the setting, and every number that the measure gives at the end is
compared with an independent computation (a plain loop, a dense Hessian, NumPy, SciPy). "right" means that they agree:
to 10⁻⁸ in float64, to 10⁻³ in float32, to 5 % for outputs in bfloat16, and within 4 standard errors where the number is
an estimate. A number in parentheses is the reason below the table for which the measure is refused.
`python -m tests.matrix.page` runs all cells and writes this page.

Unless the setting says otherwise, an MLP is trained in a `pytorch_lightning.Trainer` with one process in float64, by a
module that knows nothing of lnsgd; in "transformers", a BERT in the Trainer of that library. EMA is Lightning's
`EMAWeightAveraging`, beside which the trained weights are measured, not their average. Fine-tuning is its
`BaseFinetuning`, which here freezes the first layer in the first epoch; "freezing" freezes it from the second epoch on.
"""

_TAIL = """
`hidden_units`, `curve_shape`, `sharpness` and `recovery_error` are for one kind of small network each, in which the
quantity has a closed form, and refuse all others.
"""


def page(cells: Mapping[str, Mapping[str, Cell]]) -> str:
    """Return the page.

    Args:
        cells: The cells by setting and measure.
    """
    reasons: list[str] = []

    def shown(cell: Cell) -> str:
        if cell.wrong:
            return "WRONG"
        if not cell.refusal:
            return "right"
        if cell.refusal not in reasons:
            reasons.append(cell.refusal)
        return f"({reasons.index(cell.refusal) + 1})"

    rows = [["setting", *(f"`{name}`" for name in MEASURES)], ["---"] * (len(MEASURES) + 1)]
    rows += [[setting, *(shown(cells[setting][name]) for name in MEASURES)] for setting in SETTINGS]
    table = "\n".join(f"| {' | '.join(row)} |" for row in zip(*[row for k, row in enumerate(rows) if k != 1]))
    header, *body = table.split("\n")
    columns = header.count("|") - 1
    lines = [header, "|" + "---|" * columns, *body]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([_HEAD, *lines, "", "Refused:", "", *notes, _TAIL])


if __name__ == "__main__":
    found = {}
    for setting in SETTINGS:
        found[setting] = cells_of(setting)
        wrong = {name: cell.wrong for name, cell in found[setting].items() if cell.wrong}
        print(setting, wrong or "right", [n for n in REFUSED.get(setting, {}) if not found[setting][n].refusal] or "")
    PAGE.write_text(page(found))
