"""Pictures of an analysis: legends name what differs, the title names what does not."""

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lnsgd.analysis import pictures


def rows(source: str, steps: list[int], measures: list[tuple[str, str, str]], file: str = "last.ckpt") -> pd.DataFrame:
    """Make one row per step for each measure (name, split, layer)."""
    return pd.DataFrame(
        [
            {"source": source, "file": file, "replica": 0, "step": step, "measure": measure, "split": split}
            | {"layer": layer, "value": 0.1 * step, "stderr": 0.01 if measure == "hessian_trace" else float("nan")}
            for measure, split, layer in measures
            for step in steps
        ]
    )


LOSS = [("loss", "train", ""), ("loss", "val", "")]
TRACE = [("hessian_trace", "train", "")]
NORMS = [("norm", "", "a.weight"), ("norm", "", "b.weight")]


def axes(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}


def legend(axis: Axes) -> list[str] | None:
    drawn = axis.get_legend()
    return None if drawn is None else [text.get_text() for text in drawn.get_texts()]


def test_legend_of_one_run_names_only_what_differs() -> None:
    figure = pictures.trajectories(rows("run", [0, 10], [*LOSS, *TRACE, *NORMS]))
    panels = axes(figure)
    assert legend(panels["loss"]) == ["train", "val"]
    assert legend(panels["norm"]) == ["a.weight", "b.weight"]
    assert legend(panels["hessian_trace"]) is None
    assert figure.get_suptitle() == "run, last.ckpt"


def test_legend_of_two_runs_names_the_run() -> None:
    both = pd.concat([rows("clean", [0, 10], [*LOSS, *TRACE]), rows("noisy", [0, 20], [*LOSS, *TRACE], "other.ckpt")])
    figure = pictures.trajectories(both.reset_index(drop=True))
    panels = axes(figure)
    assert legend(panels["loss"]) == ["clean, train", "clean, val", "noisy, train", "noisy, val"]
    assert legend(panels["hessian_trace"]) == ["clean", "noisy"]
    assert figure.get_suptitle() == ""
    lines = [container.lines[0] for container in panels["loss"].containers]
    assert len({line.get_color() for line in lines}) == 2  # runs differ in color
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", "--"]  # splits differ in dashes


@pytest.mark.parametrize("split", ["train", "val"])
def test_bars_of_one_checkpoint_and_split_have_no_legend(split: str) -> None:
    sites = [("active_fraction", split, name) for name in ("a", "b")]
    figure = pictures.bars(rows("run", [10], sites))
    (panel,) = axes(figure).values()
    assert legend(panel) is None
    assert figure.get_suptitle() == "run, last.ckpt"


def test_bars_of_several_files_have_a_legend() -> None:
    sites = [("active_fraction", "val", name) for name in ("a", "b")]
    both = pd.concat([rows("one", [10], sites, "one.pt"), rows("one", [10], sites, "two.pt")])
    (panel,) = axes(pictures.bars(both)).values()
    assert legend(panel) == ["one.pt", "two.pt"]
    assert len(panel.patches) == 4


def test_files_of_equal_names_are_named_by_their_paths() -> None:
    assert pictures._file_names(["a/w.pt", "b/w.pt", "b/v.pt"]) == {
        "a/w.pt": "a/w.pt",
        "b/w.pt": "b/w.pt",
        "b/v.pt": "v.pt",
    }
