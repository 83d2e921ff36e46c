"""The page of claims that is kept."""

from pathlib import Path

import numba
import pytest
import torch

from lnsgd import __version__
from lnsgd.figures.framework.claims import CONTROL, judge
from lnsgd.figures.framework.summary import claims_record, write_summary
from tests.figures import tiny

CLAIMS = [
    judge("falls", "|N| falls", tiny.STATEMENT, paper="falls", measured=[0.49, 0.51], high=1.0),
    judge("error", "error", tiny.STATEMENT, paper=0.21, measured=[0.3, 0.3], low=0.1, high=0.2, why="The rate is low."),
    judge("rises", "rises", CONTROL, source="derived", paper=3, measured=[5.0], low=4),
    judge("all", "all", CONTROL, source="chosen", measured=[True] * 10, low=0.5),
]

TRAINED = f"""\
# tiny

Nothing much.

![Nothing much](tiny.png)

**paper: 1 of 2 holds, 1 fails; control: 1 of 2 holds, 1 undecided**

## Statements of the paper

| claim | paper | holds if | measured | interval | verdict |
|---|---|---|---|---|---|
| \\|N\\| falls<br>“some neurons fire” (Smith, Fig. 0) | falls | ≤ 1 | 0.5 ± 0.014 (n = 2) | 0.3729 … 0.6271 | holds |
| error<br>“some neurons fire” (Smith, Fig. 0) | 0.21 | 0.1 … 0.2 | 0.3 ± 0 (n = 2) | 0.3 … 0.3 | \
**fails**: The rate is low. |

## Controls

| claim | paper | holds if | measured | interval | verdict |
|---|---|---|---|---|---|
| rises<br>derived | 3 | ≥ 4 | 5 (n = 1) | none | **undecided** |
| all<br>chosen |  | ≥ 0.5 | 10 of 10 | 0.6915 … 1 | holds |

Measured: mean ± standard deviation over n seeds, or successes of n. A claim holds if the whole 95 % interval \
(Student's t for means, Clopper-Pearson for successes) lies within the bounds, fails if it lies outside, and is \
undecided otherwise. Where a statement is about each exact computation, the interval is the range of the values.

`lnsgd reproduce tiny --scale ci --seeds 2`, 64 s for 1,500 steps of every seed on abacus with 2 threads \
(lnsgd {__version__}, torch 2.0, numba {numba.__version__}).
"""


def test_of_trained_runs(tmp_path: Path) -> None:
    runs = {
        "p = 0": tiny.hand_made_run(tmp_path / "0", [], seconds=61.7, steps=1000),
        "p = 0.5": tiny.hand_made_run(tmp_path / "1", [], seconds=2.5, steps=500),
    }
    write_summary(claims_record(tiny.figure(tmp_path), "ci", 2, runs, CLAIMS), tmp_path / "summary.md")
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == TRAINED


def test_of_a_computed_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "abacus")
    figure = tiny.computed_figure()
    runs = tiny.run(figure, tmp_path)
    write_summary(claims_record(figure, "paper", 4, runs, figure.claims(runs)), tmp_path / "summary.md")
    *page, claim, _, _, _, cost = (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()
    assert page[0] == "# computed"
    assert claim == "| squares (sum)<br>Fig. 0 | 5 | any | 9.5 ± 6.4 (n = 2) | −47.68 … 66.68 | holds |"
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    took = f"0 s on abacus with {threads} (lnsgd {__version__}, torch {torch.__version__})"
    assert cost == f"`lnsgd reproduce computed --scale paper --seeds 4`, {took}."


def test_two_claims_with_one_id_are_refused(tmp_path: Path) -> None:
    figure = tiny.computed_figure()
    with pytest.raises(ValueError, match="figure computed: two claims have the id 'rises'"):
        claims_record(figure, "ci", 2, tiny.run(figure, tmp_path), [CLAIMS[2], CLAIMS[2]])
