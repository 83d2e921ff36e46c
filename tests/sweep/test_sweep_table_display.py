"""The averages of a table and their display."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from lnsgd.records.cells import COLUMNS
from lnsgd.sweep import over_seeds
from lnsgd.sweep.display import show_table
from lnsgd.sweep.options import parse_table

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
    show_table(found.to_dict("list"), console, **options)
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
    assert "status: 3 missing; n: 0" in printed(found)


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
    assert "over seeds" not in text


def test_patterns_choose_measures(found):
    text = printed(found, patterns=["trace/*/weight", "active*first"])
    assert "weight" in text
    assert "first" in text
    assert "second" not in text
    with pytest.raises(ValueError, match=r"--measures foo\*: no measure matches .* the measures are trace, active"):
        show_table(found.to_dict("list"), Console(file=io.StringIO()), patterns=["active*", "foo*"])


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


def measured(**more: list[float]) -> pd.DataFrame:
    """Return the table of two noise levels and two seeds with the measures of the command's default callbacks."""
    numbers = {
        "active_fraction/val/total": [0.41, 0.43, 0.26, 0.28],
        "active_count/train/total": [246.0, 252.0, 156.0, 162.0],
        "active_fraction/train/total": [0.4, 0.42, 0.25, 0.27],
        "active_fraction/train/net.activations.0": [0.4, 0.42, 0.25, 0.27],
        "associated_count/train/total": [55.0, 65.0, 120.0, 130.0],
        "distance_from_init": [12.5, 12.7, 9.4, 9.6],
        "distance_from_init/net.layers.0.weight": [9.0, 9.2, 7.0, 7.2],
        "distance_from_init/net.layers.1.weight": [8.0, 8.2, 6.0, 6.2],
        "hessian_trace/train": [50.0, 54.0, 68.0, 72.0],
        **more,
    }
    options = {"cell": list("abcd"), "model.label_noise.p": [0.0, 0.0, 0.1, 0.1], "seed_everything": [0, 1, 0, 1]}
    return pd.DataFrame({**options, **{name: ["done"] * 4 for name in COLUMNS}, **numbers})


def test_headline_measures_fit_80_columns_with_what_is_equal_in_the_caption():
    assert printed(measured(), 80).splitlines() == [
        "mean ± standard deviation over seeds; on train; p is model.label_noise.p; ",
        "status: 2 done; n: 2",
        "",
        "p    active_fraction  associated_count  distance_from_init  hessian_trace",
        "0      0.410 ± 0.014        60.0 ± 7.1        12.60 ± 0.14     52.0 ± 2.8",
        "0.1    0.260 ± 0.014       125.0 ± 7.1         9.50 ± 0.14     70.0 ± 2.8",
        "",
        "4 of 9 measures; --all shows the others; --cells shows each seed",
    ]


def test_error_on_the_validation_set_is_a_headline():
    table = measured(**{"error/train": [0.0] * 4, "error/val": [0.02, 0.04, 0.06, 0.08]})
    text = printed(table, 120)
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("p "))
    assert lines[head - 1].endswith(" error/")
    assert lines[head].endswith(" val")
    assert lines[head + 1].endswith(" 0.030 ± 0.014")


def test_all_measures_have_whole_names_without_their_common_beginning():
    text = printed(measured(), 80, every=True)
    assert "layers in net" in text.replace("\n", " ")
    heads = {word for line in text.splitlines() for word in line.split() if "_" in word or "." in word}
    for head in ("active_count/", "active_fraction/", "activations.0", "layers.0.weight", "layers.1.weight"):
        assert head in heads
    assert "net.layers" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "of 9 measures" not in text


def test_all_and_measures_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="--all and --measures exclude each other"):
        parse_table([str(tmp_path), "--all", "--measures", "active*"])
