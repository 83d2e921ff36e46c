"""Label noise makes an MNIST network sparse, and its neurons belong to one digit: Cornacchia et al., Fig. 5 and 6."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator
from rich.table import Table
from torch import Tensor

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import epochs, measured
from lnsgd.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, draw_band, mark_paper, plain
from lnsgd.measures.class_association import associated_class, draw_histogram
from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.checkpoint import load_safetensors

CLEAN, NOISY, SMOOTH = "p = 0", "p = 0.1", "smoothing 0.1"
SOFTMAX_CLEAN, SOFTMAX_NOISY = "softmax, p = 0", "softmax, p = 0.1"
HIDDEN_CLEAN, HIDDEN_NOISY = "one trained layer, p = 0", "one trained layer, p = 0.1"

UNITS = 600
FIG_5, FIG_6, TEXT = (f"Cornacchia et al., {where}" for where in ("Fig. 5", "Fig. 6", "MNIST experiments"))

# The paper's numbers: active fraction on the training set in percent, and digit-associated neurons.
PAPER_ACTIVE = {CLEAN: 25.0, NOISY: 6.0}
PAPER_ASSOCIATED = {CLEAN: 104.0, NOISY: 222.0}

# What noise does to them: ratio and difference.
STATED = [
    (FIG_5, PAPER_ACTIVE[NOISY] / PAPER_ACTIVE[CLEAN]),
    (FIG_6, PAPER_ASSOCIATED[NOISY] - PAPER_ASSOCIATED[CLEAN]),
]

# How close to a number of the paper counts as reproduced.
RELATIVE = 0.2

# One example of a test set of 10,000, in points.
ONE_EXAMPLE = 0.01

# What is compared with the paper stands out; colours tell label noise, line styles what else is changed.
LINES: dict[str, dict[str, Any]] = {
    CLEAN: {"color": BLUE, "linewidth": 2.4},
    NOISY: {"color": ORANGE, "linewidth": 2.4},
    SMOOTH: {"color": GREEN, "linewidth": 1.3},
    SOFTMAX_CLEAN: {"color": PURPLE, "linewidth": 1.3},
    SOFTMAX_NOISY: {"color": PURPLE, "linewidth": 1.3, "linestyle": "--"},
    HIDDEN_CLEAN: {"color": GREY, "linewidth": 1.3},
    HIDDEN_NOISY: {"color": GREY, "linewidth": 1.3, "linestyle": "--"},
}

# PyTorch's initialization of the output layer is too small to be left as it is: see the config.
_HIDDEN_ONLY = ["--model.net.train_layers", "[0]", "--model.net.init", "Uniform", "--model.net.init.bound", "0.25"]


def _active(run: RunFolder) -> np.ndarray:
    return measured(run, "active_fraction", "train").last


def _associated(run: RunFolder) -> np.ndarray:
    return measured(run, "associated_count", "train").last


def _test_error(run: RunFolder) -> np.ndarray:
    return 100 * measured(run, "error", "test").last


def _claims(runs: Runs) -> list[Claim]:
    end = f"training set, step {measured(runs[CLEAN], 'active_fraction', 'train').steps[-1]:,}"
    return [
        *_numbers(runs, "active neurons in %", FIG_5, PAPER_ACTIVE, lambda run: 100 * _active(run), end),
        *_numbers(runs, f"digit-associated neurons of {UNITS}", FIG_6, PAPER_ASSOCIATED, _associated, end),
        *_effects("", STATED, runs[CLEAN], runs[NOISY], end),
        judge(
            f"noise lowers the test error (difference in points, {end.replace('training set, ', '')})",
            source=FIG_5,
            paper="lower",
            measured=(_test_error(runs[NOISY]) - _test_error(runs[CLEAN])).tolist(),
            high=-ONE_EXAMPLE,
        ),
        _denser("label smoothing 0.1 leaves more neurons active than noise 0.1", runs[SMOOTH], runs[NOISY], end),
        _denser("p = 0: softmax leaves more neurons active than eq. (3)", runs[SOFTMAX_CLEAN], runs[CLEAN], end),
        _denser("p = 0.1: softmax leaves more neurons active than eq. (3)", runs[SOFTMAX_NOISY], runs[NOISY], end),
        *_effects("one trained layer: ", [(TEXT, "similar")] * 2, runs[HIDDEN_CLEAN], runs[HIDDEN_NOISY], end),
    ]


def _numbers(
    runs: Runs, what: str, source: str, paper: Mapping[str, float], read: Callable[[RunFolder], np.ndarray], end: str
) -> list[Claim]:
    """A number that the paper gives of both main arms."""
    return [
        judge(
            f"{arm}: {what} ({end})",
            source=source,
            paper=number,
            measured=read(runs[arm]).tolist(),
            low=number * (1 - RELATIVE),
            high=number * (1 + RELATIVE),
        )
        for arm, number in paper.items()
    ]


def _effects(
    prefix: str, stated: Sequence[tuple[str, float | str]], clean: RunFolder, noisy: RunFolder, end: str
) -> list[Claim]:
    """What noise does to active and digit-associated neurons, paired by seed; stated where and how in the paper."""
    (source_of_active, active), (source_of_associated, associated) = stated
    return [
        judge(
            f"{prefix}noise at least halves the active neurons (ratio, {end})",
            source=source_of_active,
            paper=active,
            measured=(_active(noisy) / _active(clean)).tolist(),
            high=0.5,
        ),
        judge(
            f"{prefix}noise makes more neurons digit-associated (difference, {end})",
            source=source_of_associated,
            paper=associated,
            measured=(_associated(noisy) - _associated(clean)).tolist(),
            low=1,
        ),
    ]


def _denser(claim: str, run: RunFolder, other: RunFolder, end: str) -> Claim:
    return judge(
        f"{claim} (ratio, {end})",
        source=TEXT,
        paper="more",
        measured=(_active(run) / _active(other)).tolist(),
        low=1.0,
    )


def _table(runs: Runs) -> Table:
    table = Table("arm", title="After training, mean ± standard deviation over seeds")
    for column in ("test\nerror %", "train\nerror %", "active %", "digit-\nassociated", "distance"):
        table.add_column(column, no_wrap=True)
    for arm, run in runs.items():
        table.add_row(
            arm,
            _spread(_test_error(run), ".2f"),
            f"{100 * measured(run, 'error', 'train').last.mean():.3f}",
            _spread(100 * _active(run), ".1f"),
            _spread(_associated(run), ".0f"),
            f"{measured(run, 'distance_from_init').last.mean():.1f}",
        )
    return table


def _spread(values: np.ndarray, digits: str) -> str:
    spread = f" ± {values.std(ddof=1):{digits}}" if len(values) > 1 else ""
    return f"{values.mean():{digits}}{spread}"


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 6), layout="constrained")
    left, right = picture.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.25], wspace=0.03)[0]
    _draw_curves(left, runs)
    firings = {arm: _firings(runs[arm]) for arm in (CLEAN, NOISY)}
    shown = _alive(firings.values())
    for part, (arm, fired) in zip(right.subfigures(2, 1, squeeze=False, hspace=0.05)[:, 0], firings.items()):
        _draw_histograms(part, fired, shown)
        belong = f"{_spread(_associated(runs[arm]), '.0f')} of {UNITS} neurons belong to one digit (red)"
        part.suptitle(f"label noise {arm}: {belong}", fontsize=10)
        part.supxlabel("firings per digit, the same neurons in both", fontsize=9)
    return picture


def _draw_curves(part: SubFigure, runs: Runs) -> None:
    active, error = part.subplots(2, 1, sharex=True, height_ratios=[1.7, 1])
    for arm in reversed(LINES):  # the main arms above the others
        _draw_curve(active, runs[arm], "active_fraction", "train", 0, {**LINES[arm], "label": arm})
        _draw_curve(error, runs[arm], "error", "test", 1, LINES[arm])
    for arm, number in PAPER_ACTIVE.items():
        mark_paper(active, number, f"paper\n{number:.0f} %", LINES[arm]["color"])
    active.set(ylabel="active neurons (%)", title="Active neurons, training set", ylim=(0, None))
    error.set(ylabel="test error (%)", xlabel="epoch", ylim=(0, None), xlim=(0, None))
    error.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    error.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    part.align_ylabels()
    handles, labels = active.get_legend_handles_labels()
    seeds = len(_active(runs[CLEAN]))
    title = f"mean ± s.d. over {seeds} seeds" if seeds > 1 else None
    part.legend(
        handles[::-1], labels[::-1], title=title, loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    plain(active)
    plain(error)


def _draw_curve(axis: Axes, run: RunFolder, measure: str, split: str, first: int, line: Mapping[str, Any]) -> None:
    """A fraction in percent over epochs, from the given measurement on."""
    curves = measured(run, measure, split)
    draw_band(axis, epochs(run, curves.steps)[first:], 100 * curves.values[:, first:], **line)


def _firings(run: RunFolder) -> Tensor:
    """How often each neuron of the first seed's network fired for each digit, (10, units)."""
    return load_safetensors(run.firings)["replica0/net.activations.0"]


def _alive(firings: Iterable[Tensor]) -> list[int]:
    """Neurons that fire in each of the networks, which began alike."""
    return torch.stack([fired.sum(0) > 0 for fired in firings]).all(0).nonzero().flatten().tolist()


def _draw_histograms(part: SubFigure, firings: Tensor, neurons: Sequence[int], shape: tuple[int, int] = (2, 5)) -> None:
    """Firings per digit of the first of these neurons."""
    classes = associated_class(firings)
    for axis, unit in zip_longest(part.subplots(*shape).ravel(), neurons[: prod(shape)]):
        if unit is None:
            axis.set_axis_off()
            continue
        draw_histogram(axis, firings[:, unit], int(classes[unit]))
        axis.tick_params(labelsize=8)


FIGURE = Figure(
    name="cornacchia-mnist",
    title="Label noise makes an MNIST network sparse, and neurons belong to one digit (Cornacchia et al., Fig. 5, 6)",
    config="figures/cornacchia-mnist.yaml",
    scales={
        # A sixth of the images: the step size would be halved after six times as many epochs, which are not run.
        "ci": Scale(
            seeds=2,
            options=["--data.source", "sample", "--trainer.max_epochs", "12", "--model.lr_scheduler.step_size", "30"],
            # A page of histograms takes as long as five epochs; it is the config's last callback that draws it.
            arms={arm: ["--trainer.callbacks.init_args.histograms", "0"] for arm in LINES if arm not in (CLEAN, NOISY)},
        ),
        "paper": Scale(seeds=5),
    },
    arms={
        CLEAN: ["--model.label_noise.p", "0"],
        NOISY: ["--model.label_noise.p", "0.1"],
        SMOOTH: ["--model.label_noise", "LabelSmoothing", "--model.label_noise.p", "0.1"],
        SOFTMAX_CLEAN: ["--model.loss", "CrossEntropy", "--model.label_noise.p", "0"],
        SOFTMAX_NOISY: ["--model.loss", "CrossEntropy", "--model.label_noise.p", "0.1"],
        HIDDEN_CLEAN: [*_HIDDEN_ONLY, "--model.label_noise.p", "0"],
        HIDDEN_NOISY: [*_HIDDEN_ONLY, "--model.label_noise.p", "0.1"],
    },
    table=_table,
    claims=_claims,
    draw=_draw,
)
