"""The page of claims that is kept."""

from pathlib import Path

import numba
import pytest
import torch

from lnsgd import __version__
from lnsgd.figures.claims import judge
from lnsgd.figures.summary import write_summary
from tests.figures import tiny

CLAIMS = [
    judge("|N| falls", source="Theorem 1", paper="falls", measured=[0.25, 0.75], high=1.0),
    judge("error", source="Fig. 1", paper=0.21, measured=[0.3333], low=0.1, high=0.2),
    judge("rises", source="Fig. 2", paper=3, measured=[5.0], low=4),
]

TRAINED = f"""\
# tiny

Nothing much.

![Nothing much](tiny.png)

| claim | source | paper | holds from … to | measured | holds |
|---|---|---|---|---|---|
| \\|N\\| falls | Theorem 1 | falls |  … 1 | 0.5 ± 0.35 (n = 2) | yes |
| error | Fig. 1 | 0.21 | 0.1 … 0.2 | 0.333 (n = 1) | **no** |
| rises | Fig. 2 | 3 | 4 …  | 5 (n = 1) | yes |

Measured: mean ± standard deviation over n seeds, or over what the claim counts.

`lnsgd reproduce tiny --scale ci --seeds 2`, 64 s for 1,500 steps of every seed on abacus with 2 threads \
(lnsgd {__version__}, torch 2.0, numba {numba.__version__}).
"""


def test_of_trained_runs(tmp_path: Path) -> None:
    runs = {
        "p = 0": tiny.hand_made_run(tmp_path / "0", [], seconds=61.7, steps=1000),
        "p = 0.5": tiny.hand_made_run(tmp_path / "1", [], seconds=2.5, steps=500),
    }
    write_summary(tiny.figure(tmp_path), "ci", 2, runs, CLAIMS, tmp_path / "summary.md")
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == TRAINED


def test_of_a_computed_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "abacus")
    figure = tiny.computed_figure()
    runs = tiny.run(figure, tmp_path)
    write_summary(figure, "paper", 4, runs, figure.claims(runs), tmp_path / "summary.md")
    *page, claim, _, _, _, cost = (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()
    assert page[0] == "# computed"
    assert claim == "| squares (sum) | Fig. 0 | 5 |  …  | 9.5 ± 6.4 (n = 2) | yes |"
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    took = f"0 s on abacus with {threads} (lnsgd {__version__}, torch {torch.__version__})"
    assert cost == f"`lnsgd reproduce computed --scale paper --seeds 4`, {took}."
