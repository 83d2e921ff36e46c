"""Tables of a page: their columns, the format of numbers, and the keys by which rows are sorted."""

import math
from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsgd.console.numbers import between, number, numbers, plus_minus
from lnsgd.report.tables import table_of


def read_back(text: str) -> float:
    """Return the number in a text."""
    mantissa, _, exponent = text.replace("−", "-").replace(",", "").partition(" × 10")
    return float(mantissa) * 10.0 ** int(exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)


finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30).filter(
    lambda value: value == 0 or abs(value) > 1e-30
)


@given(finite)
def test_number_has_four_digits(value: float) -> None:
    assert read_back(number(value)) == pytest.approx(value, rel=5.01e-4)


@given(st.lists(finite, max_size=8))
def test_numbers_of_a_column_have_the_same_decimals(values: list[float]) -> None:
    texts = numbers(values)
    assert [read_back(text) for text in texts] == [pytest.approx(value, rel=5.01e-4) for value in values]
    sizes = [abs(value) for value in values if value]
    if sizes and max(sizes) <= 1000 * min(sizes) and not any("×" in text for text in texts):
        assert len({len(text.partition(".")[2]) for text in texts}) == 1


@given(finite, st.floats(min_value=1e-6, max_value=0.5))
def test_value_and_error_end_with_the_same_digit(value: float, relative: float) -> None:
    error = abs(value) * relative or 0.1
    text = plus_minus(value, error)
    bare, _, power = text.strip("(").partition(")")
    mean, _, spread = bare.partition(" ± ")
    assert read_back(mean + power) == pytest.approx(value, abs=0.051 * error)
    assert read_back(spread + power) == pytest.approx(error, rel=0.051)
    if Decimal(f"{error:.1e}") < 10 or power:
        assert len(mean.partition(".")[2]) == len(spread.partition(".")[2])


CASES = {
    "nan": (number(math.nan), "–"),
    "infinite": (number(-math.inf), "−∞"),
    "large-int": (number(10**12), "1,000,000,000,000"),
    "nan-with-error": (plus_minus(math.nan, 0.1), "–"),
    "no-error": (plus_minus(0.5, math.nan), "0.5"),
    "error-zero": (plus_minus(2.0, 0.0), "2 ± 0"),
    "error-infinite": (plus_minus(2.0, math.inf), "2 ± ∞"),
    "error-larger": (plus_minus(0.001, 2.0), "0.0 ± 2.0"),
    "no-bounds": (between(None, None), "any"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_special_numbers(text: str, expected: str) -> None:
    assert text == expected


def test_standard_errors_are_shown_beside_values() -> None:
    frame = pd.DataFrame({"trace": [8.709, 9.5], "trace/stderr": [0.049, None], "x/stderr": [1.0, 2.0]})
    table = table_of(frame, "t")
    assert [column.name for column in table.columns] == ["trace", "x/stderr"]  # an error of nothing is a number
    assert [row[0].text for row in table.rows] == ["8.709 ± 0.049", "9.5"]
    assert [row[0].key for row in table.rows] == ["8.709", ""]  # the second is read from its text


def test_empty_and_constant_columns_are_not_shown() -> None:
    frame = pd.DataFrame({"a": [1, 2], "none": [None, None], "device": ["cpu", "cpu"], "kept": [5, 5]})
    table = table_of(frame, "t", keep=["kept"])
    assert [column.name for column in table.columns] == ["a", "kept"]
    assert table.same == [("device", "cpu")]


def test_numbers_that_differ_beyond_the_shown_digits_stay_a_column() -> None:
    table = table_of(pd.DataFrame({"loss": [0.300001, 0.300002]}), "t")
    assert [[cell.text for cell in row] for row in table.rows] == [["0.3"], ["0.3"]]
    assert [row[0].key for row in table.rows] == ["0.300001", "0.300002"]


def test_kinds_of_columns() -> None:
    frame = pd.DataFrame({"n": [1, None], "list": [[1, 2], [3, 4]], "flag": [True, False], "mixed": [1, "a"]})
    table = table_of(frame, "t")
    assert {column.name: column.numeric for column in table.columns} == {
        "n": True,
        "list": False,
        "flag": False,
        "mixed": False,
    }
    assert [cell.text for cell in table.rows[0]] == ["1", "[1, 2]", "True", "1"]
    assert table.rows[1][0].text == ""


def test_marked_column() -> None:
    table = table_of(pd.DataFrame({"status": ["done", "failed"], "a": ["x", "y"]}), "t", mark="status")
    assert [[cell.mark for cell in row] for row in table.rows] == [["done", ""], ["failed", ""]]


def test_too_many_rows() -> None:
    table = table_of(pd.DataFrame({"a": range(10)}), "t", most=4)
    assert ([row[0].text for row in table.rows], table.left_out) == (["0", "1", "2", "3"], 6)
