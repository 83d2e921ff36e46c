"""The averages of a table and their display."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from lnsgd.records.cells import COLUMNS
from lnsgd.sweep import over_seeds
from lnsgd.sweep.display import show_table

VALUES = {("0.0", 0): 1.0, ("0.0", 1): 3.0, ("0.0", 2): 8.0, ("0.1", 0): 5.0, ("0.1", 1): 7.0, ("0.1", 2): 900.0}


@pytest.fixture
def found() -> pd.DataFrame:
    """Return a table of two noise levels and three seeds, of which the last cell has diverged."""
    statuses = ["done", "limit", "done", "done", "done", "diverged"]
    rows = [
        {
            "cell": f"{p}-{seed}",
            "noise.p": p,
            "widths": [784, 10],
            "seed_everything": seed,
            **dict.fromkeys(COLUMNS, 1),
            "status": status,
            "trace/train": value,
            "trace/train/stderr": 0.25,
            "trace/train/weight": value / 2,
            "active/val/first": value / 10,
            "active/val/second": value / 20,
        }
        for ((p, seed), value), status in zip(VALUES.items(), statuses)
    ]
    return pd.DataFrame(rows)


def printed(found: pd.DataFrame, width: int = 200, **options) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_table(found, console, **options)
    return console.file.getvalue()


def test_means_and_standard_deviations_over_seeds(found):
    table = over_seeds(found)
    assert list(table["noise.p"]) == ["0.0", "0.1"]
    assert list(table.n) == [3, 2]  # a diverged cell is not a trained network
    assert list(table.status) == ["2 done, 1 limit", "2 done, 1 diverged"]
    np.testing.assert_allclose(table["trace/train"], [4.0, 6.0], rtol=1e-15)
    np.testing.assert_allclose(table["trace/train/std"], [np.std([1, 3, 8], ddof=1), np.sqrt(2)], rtol=1e-15)
    assert "trace/train/stderr" not in table
    assert "seed_everything" not in table


def test_one_seed_has_no_standard_deviation(found):
    table = over_seeds(found[found.seed_everything == 0])
    assert list(table.n) == [1, 1]
    assert table["trace/train/std"].isna().all()


def test_missing_cells_have_no_numbers(found):
    found = found.assign(**{"status": "missing", "trace/train": np.nan})
    assert list(over_seeds(found).n) == [0, 0]
    assert "6 missing" not in printed(found)
    assert printed(found).count("3 missing") == 2


def test_parts_of_totals_are_not_shown(found):
    text = printed(found)
    assert "4.0 ± 3.6" in text
    assert "weight" not in text
    assert "second" in text  # a site without a total
    assert "seed_everything" not in text


def test_cells_are_shown_with_standard_errors(found):
    text = printed(found, cells=True)
    assert "900.00 ± 0.25" in text
    assert "seed_everything" in text
    assert "over n seeds" not in text


def test_patterns_choose_measures(found):
    text = printed(found, patterns=["trace/*/weight", "active*first"])
    assert "weight" in text
    assert "first" in text
    assert "second" not in text
    with pytest.raises(ValueError, match=r"--measures foo\*: no measure matches .* the measures are trace, active"):
        show_table(found, Console(file=io.StringIO()), patterns=["active*", "foo*"])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_column_is_cut_on_a_narrow_terminal(found, width):
    text = printed(found, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "".join(text.split()) != ""
    for number in ("4.0 ± 3.6", "0.40 ± 0.36", "0.20 ± 0.18"):
        assert number in text


def test_first_rows_of_a_long_table_are_shown(found):
    many = pd.concat([found.assign(**{"noise.p": str(level)}) for level in range(50)])
    text = printed(many)
    assert "The first 40 of 50 rows" in text
