"""Label noise makes an MNIST network sparse: Cornacchia et al., Fig. 5 and 6, with mini-batches of 32."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.figure import SubFigure
from rich.table import Table
from safetensors.torch import load_file

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs
from lnsgd.figures.results import logged, measured
from lnsgd.measures.class_association import associated_class, draw_histogram
from lnsgd.run_folder import RunFolder

CLEAN, NOISY = "p = 0", "p = 0.1"
COLORS = {CLEAN: "tab:blue", NOISY: "tab:orange"}


def _test_error(run: RunFolder) -> float:
    return 1 - logged(run, "val/accuracy")  # this config validates on the test set


def _final(run: RunFolder, measure: str, split: str = "") -> float:
    return float(measured(run, measure, split).values[-1])


def _ratio(of: float, to: float) -> float:
    return of / to if to else math.nan


def _table(runs: Runs) -> Table:
    table = Table(title="Real MNIST with label noise, after training")
    for column in ("arm", "test error", "active", "digit-associated", "distance", "Hessian trace"):
        table.add_column(column, no_wrap=True)
    for arm, of_arm in runs.items():
        trace = [measured(run, "hessian_trace", "train") for run in of_arm]
        mean = float(np.mean([t.values[-1] for t in trace]))
        error = float(np.mean([t.stderrs[-1] for t in trace]))  # all runs share their probes: not independent
        units = _final(of_arm[0], "associated_count", "train") / _final(of_arm[0], "associated_fraction", "train")
        table.add_row(
            arm,
            f"{100 * np.mean([_test_error(run) for run in of_arm]):.2f} %",
            f"{100 * np.mean([_final(run, 'active_fraction', 'train') for run in of_arm]):.1f} %",
            f"{np.mean([_final(run, 'associated_count', 'train') for run in of_arm]):.0f} of {units:.0f}",
            f"{np.mean([_final(run, 'distance_from_init') for run in of_arm]):.2f}",
            f"{mean:.3g} ± {error:.2g}",
        )
    return table


def _claims(runs: Runs) -> list[Claim]:
    pairs = list(zip(runs[CLEAN], runs[NOISY]))

    def ratios(measure: str) -> list[float]:
        return [_ratio(_final(noisy, measure, "train"), _final(clean, measure, "train")) for clean, noisy in pairs]

    return [
        judge(
            "label noise at least halves the active fraction (ratio)",
            source="Cornacchia et al., Fig. 5",
            paper=6 / 25,
            measured=ratios("active_fraction"),
            high=0.5,
        ),
        judge(
            "more neurons belong to one digit (ratio)",
            source="Cornacchia et al., Fig. 6",
            paper=222 / 104,
            measured=ratios("associated_count"),
            low=1.0,
        ),
        judge(
            "the test error is lower (difference in points)",
            source="Cornacchia et al., Fig. 5",
            paper="lower",
            measured=[100 * (_test_error(noisy) - _test_error(clean)) for clean, noisy in pairs],
            high=-0.01,  # one image of the 10,000 in the test set
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 4.2), layout="constrained")
    left, right = picture.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.5], wspace=0.04)[0]
    _draw_curves(left.subplots(), runs)
    for part, arm in zip(right.subfigures(2, 1, squeeze=False)[:, 0], runs):
        _draw_histograms(part, arm, runs[arm][0])
    return picture


def _draw_curves(axis: Axes, runs: Runs) -> None:
    for arm, of_arm in runs.items():
        curves = [measured(run, "active_fraction", "train") for run in of_arm]
        values = np.array([curve.values for curve in curves])
        mean, spread = values.mean(0), values.std(0)
        axis.plot(curves[0].epochs, mean, color=COLORS[arm], label=arm)
        axis.fill_between(curves[0].epochs, mean - spread, mean + spread, color=COLORS[arm], alpha=0.2, linewidth=0)
    axis.set(xlabel="epoch", ylabel="active fraction (train)", title="Active neurons")
    axis.set_ylim(0, None)
    axis.set_xlim(0, None)
    axis.legend(title="label noise", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_histograms(part: SubFigure, arm: str, run: RunFolder, shape: Sequence[int] = (2, 8)) -> None:
    firings = next(iter(load_file(run.firings).values()))
    classes = associated_class(firings)
    alive = torch.nonzero(firings.sum(0) > 0).flatten().tolist()
    associated = int((classes >= 0).sum())
    part.suptitle(f"{arm}: firings per digit, {associated} of {len(classes)} neurons belong to one (red)", fontsize=9)
    for axis, unit in zip(part.subplots(*shape).ravel(), alive):
        draw_histogram(axis, firings[:, unit], int(classes[unit]))


FIGURE = Figure(
    name="mnist-sparsity",
    title="Label noise makes an MNIST network sparse, and its neurons belong to one digit (Cornacchia et al.)",
    config="figures/mnist-sparsity.yaml",
    scales={
        # A sixth of the images: six times as many epochs between halvings, and no time for the first of them.
        "demo": ["--data.source", "sample", "--trainer.max_epochs", "20", "--model.lr_scheduler.step_size", "30"],
        "full": [],
    },
    arms={CLEAN: ["--model.label_noise.p", "0"], NOISY: ["--model.label_noise.p", "0.1"]},
    table=_table,
    claims=_claims,
    draw=_draw,
)
