"""Tables of an analysis on a terminal of 80 columns."""

import math

import pandas as pd

from lnsgd.analysis.tables import Shown, difference_lines, measurement_lines, similarity_lines
from lnsgd.records.analyses import COLUMNS, DIFFERENCES, SIMILARITY

NAN = math.nan

# Split, measure, layer, value at the start and at the end, and the standard error of both.
NUMBERS = [
    ("train", "error", "", 0.9, 0.05, NAN),
    ("val", "error", "", 0.9, 0.07, NAN),
    ("train", "active_count", "total", 308.9, 157.0, NAN),
    ("train", "active_fraction", "total", 0.5, 0.26, NAN),
    ("train", "active_fraction", "net.activations.0", 0.5, 0.26, NAN),
    ("val", "active_fraction", "total", 0.51, 0.27, NAN),
    ("", "distance_from_init", "", 0.0, 11.79, NAN),
    ("", "norm", "net.layers.0.weight", 14.13, 17.2, NAN),
    ("", "norm", "net.layers.1.weight", 1.837, 7.473, NAN),
    ("train", "hessian_trace", "", 70.0, 84.0, 0.25),
    ("train", "hessian_trace", "net.layers.0.weight", 37.0, 53.0, 0.25),
]


def analysis() -> pd.DataFrame:
    rows = [
        (
            "runs/a-run/checkpoints/last.ckpt",
            step,
            0,
            0,
            split,
            measure,
            layer,
            (first, last)[step > 0],
            error,
            "trained",
        )
        for step in (0, 790)
        for split, measure, layer, first, last, error in NUMBERS
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.assign(checkpoint=[f"{path}{step}" for path, step in zip(table.checkpoint, table.step)])


def differences() -> pd.DataFrame:
    rows = [
        (split, measure, layer, first, last, last - first, error, error, error, 1)
        for split, measure, layer, first, last, error in NUMBERS
    ]
    return pd.DataFrame(rows, columns=list(DIFFERENCES))


def test_analysis_shows_the_headlines_first_and_the_run_above_the_table() -> None:
    assert list(measurement_lines(analysis(), Shown.HEADLINES, 80)) == [
        "a-run: step 0, step 790",
        "",
        "measure             split        step 0      step 790",
        "active_fraction     train           0.5          0.26",
        "active_fraction     val            0.51          0.27",
        "distance_from_init                    0         11.79",
        "hessian_trace       train  70.00 ± 0.25  84.00 ± 0.25",
        "error               train           0.9          0.05",
        "error               val             0.9          0.07",
        "",
        "6 of 11 rows; --all shows the others",
        "From step 0 to step 790: active −48 %, trace +20 %.",
    ]


def test_all_rows_have_whole_names_of_layers_without_their_common_beginning() -> None:
    lines = list(measurement_lines(analysis(), Shown.ALL, 80))
    assert lines[1] == "layers in net"
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("norm ") for line in lines) == 2
    assert any(line.split()[:3] == ["norm", "layers.0.weight", "14.13"] for line in lines)
    assert not any("--all" in line for line in lines)


def test_named_measures_show_their_layers_but_no_parts_of_totals() -> None:
    table = analysis()
    lines = list(measurement_lines(table[table.measure.isin(["norm", "hessian_trace"])], Shown.CHOSEN, 80))
    assert [line.split()[0] for line in lines if line.startswith(("norm", "hess"))] == ["norm", "norm", "hessian_trace"]


def test_what_has_no_headline_is_shown() -> None:
    table = analysis()
    lines = list(measurement_lines(table[table.measure == "norm"], Shown.HEADLINES, 80))
    assert lines[1] == "layers in net.layers"
    assert lines[3].split() == ["measure", "layer", "step", "0", "step", "790"]


def test_replicas_are_shown_by_mean_and_deviation() -> None:
    table = analysis()
    both = pd.concat([table, table.assign(replica=1, value=table.value + 2)])
    lines = list(measurement_lines(both, Shown.HEADLINES, 80))
    assert "mean ± standard deviation over replicas" in lines
    assert any(line.split()[:3] == ["hessian_trace", "train", "71.0"] for line in lines)  # 70 and 72
    assert any("71.0 ± 1.4" in line for line in lines)


def test_comparison_fits_80_columns_and_ends_with_a_sentence() -> None:
    lines = list(difference_lines(differences(), ("clean", "noisy"), Shown.HEADLINES, 80))
    assert lines[1] == "measure             split      A: clean      B: noisy         B − A"
    assert "hessian_trace       train  70.00 ± 0.25  84.00 ± 0.25  14.00 ± 0.25" in lines
    assert lines[-1] == "From A to B: active −48 %, trace +20 %."


def test_long_names_stand_above_the_table() -> None:
    lines = list(difference_lines(differences(), ("a-very-long-name-of-a-run", "b"), Shown.HEADLINES, 80))
    assert lines[:2] == ["A: a-very-long-name-of-a-run", "B: b"]
    assert lines[3].split() == ["measure", "split", "A", "B", "B", "−", "A"]


def similarity(sites: list[str]) -> pd.DataFrame:
    rows = [(0, split, "often_active_jaccard", site, 0.25) for split in ("train", "val") for site in sites]
    rows += [(seed, split, "cka", "", 0.5 + seed / 10) for split in ("train", "val") for seed in (0, 1)]
    return pd.DataFrame(rows, columns=list(SIMILARITY))


def test_similarity_has_a_column_for_each_split() -> None:
    assert list(similarity_lines(similarity(["net.act"]), Shown.HEADLINES, 80)) == [
        "how alike A and B are; active units of net.act",
        "",
        "measure                       train            val",
        "often_active_jaccard           0.25           0.25",
        "cka                   0.550 ± 0.071  0.550 ± 0.071",
        "",
    ]


def test_several_sites_are_shown_on_request() -> None:
    table = similarity(["net.0.act", "net.1.act"])
    assert not any("jaccard" in line for line in similarity_lines(table, Shown.HEADLINES, 80))
    lines = list(similarity_lines(table, Shown.ALL, 80))
    assert [line.split()[1] for line in lines if "jaccard" in line] == ["0.act", "1.act"]
