"""Tables for a terminal: columns that fit, names that stay whole, captions."""

from lnsgd.console.tables import Column, common_prefix, short_names, split_off_equal, tables


def test_tables_begin_with_the_left_columns_and_fit_the_width() -> None:
    left = [Column("name", ["first", "second"], is_text=True)]
    right = [Column(f"{'head' * n}", [str(n), "1" * n]) for n in (1, 2, 3, 4)]
    found = list(tables(left, right, 30))
    assert found == [
        ["name    head  headhead", "first      1         2", "second     1        11"],
        ["name    headheadhead", "first              3", "second           111"],
        ["name    headheadheadhead", "first                  4", "second              1111"],
    ]
    assert len(list(tables(left, right, 80))) == 1


def test_lines_of_headings_end_at_the_bottom() -> None:
    left, right = Column("a\nlong", ["1"]), Column("b", ["2"])
    assert list(tables([left], [right], 80)) == [["   a", "long  b", "   1  2"]]


def test_column_too_wide_for_the_terminal_is_not_cut() -> None:
    assert list(tables([], [Column("h" * 90, ["x"])], 80)) == [["h" * 90, " " * 89 + "x"]]


def test_equal_columns_are_split_off_unless_there_is_one_row() -> None:
    split, value = Column("split", ["train", "train"]), Column("value", ["1", "2"])
    assert split_off_equal([split, value]) == ([value], [split])
    assert split_off_equal([Column("split", ["train"])]) == ([Column("split", ["train"])], [])


def test_prefix_ends_at_a_dot_and_leaves_a_name() -> None:
    assert common_prefix(["net.a.weight", "net.ab.weight"]) == "net."
    assert common_prefix(["net.a", "net.a.b"]) == "net."
    assert common_prefix(["net.a", "net.a"]) == ""
    assert common_prefix(["net.a", "other"]) == ""
    assert common_prefix([]) == ""


def test_short_names_tell_options_apart() -> None:
    names = ["model.p", "data.p", "model.net.width", "p"]
    assert short_names(names) == {"model.p": "model.p", "data.p": "data.p", "model.net.width": "width", "p": "p"}
