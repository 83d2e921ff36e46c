"""Label noise makes an MNIST network sparse, and its neurons belong to one digit: Cornacchia et al., Fig. 5 and 6."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from math import prod
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator
from rich.table import Table
from torch import Tensor

from lnsgd.figures.cornacchia.mnist_claims import (
    CLEAN,
    CONFIG,
    HIDDEN_CLEAN,
    HIDDEN_NOISY,
    NOISY,
    PAPER_ACTIVE,
    PAPER_ASSOCIATED,
    SMOOTH,
    SOFTMAX_CLEAN,
    SOFTMAX_NOISY,
    UNITS,
    active_fraction,
    associated_count,
    judge_arms,
    test_error,
)
from lnsgd.figures.framework.claims import slug
from lnsgd.figures.framework.figure import Figure, Runs, Scale, Variant
from lnsgd.figures.framework.results import epochs, measured
from lnsgd.figures.framework.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    draw_band,
    mark_paper,
    mean_and_deviation,
    plain,
    seeds_title,
)
from lnsgd.measures.neurons.class_association import associated_class
from lnsgd.measuring.pictures import draw_histogram
from lnsgd.rng import generator
from lnsgd.runs.folder import RunFolder
from lnsgd.untrusted.checkpoint import load_safetensors

# Rows and columns of the histograms of each main arm: 30 random neurons, as in the paper's Fig. 6.
HISTOGRAMS = (3, 10)

# The arms that the paper gives numbers for stand out. Controls share a colour, and differ in line style by noise.
LINES: dict[str, dict[str, Any]] = {
    CLEAN: {"color": BLUE, "linewidth": 2.4},
    NOISY: {"color": ORANGE, "linewidth": 2.4},
    SMOOTH: {"color": GREEN, "linewidth": 1.3},
    SOFTMAX_CLEAN: {"color": PURPLE, "linewidth": 1.3},
    SOFTMAX_NOISY: {"color": PURPLE, "linewidth": 1.3, "linestyle": "--"},
    HIDDEN_CLEAN: {"color": GREY, "linewidth": 1.3},
    HIDDEN_NOISY: {"color": GREY, "linewidth": 1.3, "linestyle": "--"},
}


def _uniform(bound: float) -> list[str]:
    """Return the options for weights U[−bound, bound] and biases 0."""
    return ["--model.net.init", "Uniform", "--model.net.init.bound", str(bound)]


# PyTorch's initialization of the output layer is too small if that layer is not trained: see the config.
_HIDDEN_ONLY = ["--model.net.train_layers", "[0]", *_uniform(0.25)]


def _table(runs: Runs) -> Table:
    table = Table("arm", title="After training, mean ± standard deviation over seeds")
    for column in ("test\nerror %", "train\nerror %", "active %", "digit-\nassociated", "distance"):
        table.add_column(column, no_wrap=True)
    for arm, run in runs.items():
        table.add_row(
            arm,
            mean_and_deviation(test_error(run), ".2f"),
            f"{100 * measured(run, 'error', 'train').last.mean():.3f}",
            mean_and_deviation(100 * active_fraction(run), ".1f"),
            mean_and_deviation(associated_count(run), ".0f"),
            f"{measured(run, 'distance_from_init').last.mean():.1f}",
        )
    return table


def _comparison(runs: Runs) -> Table:
    """Compare the main arms with each other and with the paper, whose numbers are in brackets."""
    table = Table("", title="At the end, mean ± s.d. over seeds (in brackets: the paper)")
    for column in ("test error %", "active %", f"digit-associated of {UNITS}", "distance"):
        table.add_column(column, no_wrap=True)
    for arm, active in PAPER_ACTIVE.items():
        run = runs[arm]
        table.add_row(
            arm,
            mean_and_deviation(test_error(run), ".2f"),
            f"{mean_and_deviation(100 * active_fraction(run), '.1f')} ({active:.0f})",
            f"{mean_and_deviation(associated_count(run), '.0f')} ({PAPER_ASSOCIATED[arm]:.0f})",
            f"{measured(run, 'distance_from_init').last.mean():.1f}",
        )
    return table


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(13, 6.5), layout="constrained")
    left, right = picture.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.8], wspace=0.03)[0]
    _draw_curves(left, runs)
    firings = {arm: _firings(runs[arm]) for arm in (CLEAN, NOISY)}
    shown = _drawn_of_active(firings.values())
    for part, (arm, fired) in zip(right.subfigures(2, 1, squeeze=False, hspace=0.05)[:, 0], firings.items()):
        _draw_histograms(part, fired, shown)
        belong = (
            f"{mean_and_deviation(associated_count(runs[arm]), '.0f')} of {UNITS} neurons belong to one digit (red)"
        )
        part.suptitle(f"label noise {arm}: {belong}", fontsize=10)
        part.supxlabel("firings per digit, the same random neurons in both", fontsize=9)
    return picture


def _draw_curves(part: SubFigure, runs: Runs) -> None:
    active, error = part.subplots(2, 1, sharex=True, height_ratios=[1.7, 1])
    for arm in reversed(LINES):  # the main arms are drawn above the others
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
    seeds = len(active_fraction(runs[CLEAN]))
    part.legend(
        handles[::-1],
        labels[::-1],
        title=seeds_title(seeds),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    plain(active)
    plain(error)


def _draw_curve(axis: Axes, run: RunFolder, measure: str, split: str, first: int, line: Mapping[str, Any]) -> None:
    """Draw a fraction in percent over epochs, starting at the given measurement."""
    curves = measured(run, measure, split)
    draw_band(axis, epochs(run, curves.steps)[first:], 100 * curves.values[:, first:], **line)


def _firings(run: RunFolder) -> Tensor:
    """Return how often each neuron of the first seed's network fired for each digit, (10, units)."""
    return load_safetensors(run.firings)["replica0/net.activations.0"]


def _drawn_of_active(firings: Iterable[Tensor], most: int = prod(HISTOGRAMS)) -> list[int]:
    """Draw neurons, as many as the paper shows, of those that fire in all of the networks, which began alike."""
    active = torch.stack([fired.sum(0) > 0 for fired in firings]).all(0).nonzero().flatten()
    drawn = torch.randperm(len(active), generator=generator(0, "subset"))[:most]
    return sorted(active[drawn].tolist())


def _draw_histograms(part: SubFigure, firings: Tensor, neurons: Sequence[int]) -> None:
    """Draw the firings per digit of these neurons, at most as many as there are places."""
    classes = associated_class(firings)
    for axis, unit in zip_longest(part.subplots(*HISTOGRAMS).ravel(), neurons):
        if unit is None:
            axis.set_axis_off()
            continue
        draw_histogram(axis, firings[:, unit], int(classes[unit]))


# The paper states U[−√3, √3] for the weights of all experiments, and for MNIST neither biases nor the range of pixels.
VARIANTS = {
    "U[−√3, √3]": Variant(
        "weights start as U[−√3, √3], as § 6 states for all experiments; biases at zero", _uniform(1.7320508)
    ),
    "U[−0.3, 0.3]": Variant(
        "fitted to the paper's four numbers: weights start as U[−0.3, 0.3], biases at zero", _uniform(0.3)
    ),
    "U[−0.3, 0.3], biases too": Variant(
        "weights and biases start as U[−0.3, 0.3]", [*_uniform(0.3), "--model.net.init.biases", "true"]
    ),
    "He": Variant("weights start as N(0, 2/fan_in), biases at zero", ["--model.net.init", "HeNormal"]),
    "Xavier": Variant(
        "weights start as N(0, 2/(fan_in + fan_out)), biases at zero", ["--model.net.init", "XavierNormal"]
    ),
    "no biases": Variant("PyTorch's initialization, and no layer has biases", ["--model.net.bias", "false"]),
    "h = 0.005": Variant("half the step size", ["--model.optimizer.lr", "0.005"]),
    "h = 0.02": Variant("twice the step size", ["--model.optimizer.lr", "0.02"]),
    "batches of 32": Variant("batches of 32, h = 0.32", ["--data.batch_size", "32", "--model.optimizer.lr", "0.32"]),
    "batches of 128": Variant("batches of 128, h = 0.4", ["--data.batch_size", "128", "--model.optimizer.lr", "0.4"]),
    "p = 0.05": Variant("half the noise", arms={NOISY: ["--model.label_noise.p", "0.05"]}),
    "labels flip": Variant(
        "a label is changed to another class with probability p = 0.1, and never replaced by itself",
        arms={NOISY: ["--model.label_noise.p", "0.11111111"]},  # of ten classes, one is the label itself
    ),
    "p = 0.2": Variant("twice the noise", arms={NOISY: ["--model.label_noise.p", "0.2"]}),
    "softmax": Variant("the softmax loss instead of eq. (3)", ["--model.loss", "CrossEntropy"]),
    "larger pixels": Variant(
        "pixels are divided by their standard deviation, so they lie in [0, 3.25]",
        ["--data.mean", "[0.0]", "--data.std", "[0.3081]"],
    ),
    "standardized": Variant("pixels less their mean over their standard deviation", ["--data.standardize", "true"]),
}

FIGURE = Figure(
    name="cornacchia-mnist",
    title="Label noise makes an MNIST network sparse, and neurons belong to one digit (Cornacchia et al., Fig. 5, 6)",
    config=CONFIG,
    scales={
        # A sixth of the images, so the step size would be halved after six times as many epochs, which are not run.
        "ci": Scale(
            seeds=2,
            options=["--data.source", "sample", "--trainer.max_epochs", "12", "--model.lr_scheduler.step_size", "30"],
            # Only these arms have histograms in the picture; the option is of the config's last callback.
            arms={arm: ["--trainer.callbacks.init_args.histograms", "0"] for arm in LINES if arm not in (CLEAN, NOISY)},
        ),
        # 15 epochs do where the arms that are compared had as many: with a step size that is halved every 5 epochs, the
        # steps of 15 epochs have 87.5 % of the sum of the sizes of all steps that could follow.
        "paper": Scale(
            seeds=10,
            arms={
                arm: ["--trainer.max_epochs", "15"]
                for arm in (SOFTMAX_CLEAN, SOFTMAX_NOISY, HIDDEN_CLEAN, HIDDEN_NOISY)
            },
        ),
        # For the many readings of --variants.
        "half": Scale(seeds=3, options=["--trainer.max_epochs", "15"]),
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
    comparison=_comparison,
    compared=list(PAPER_ACTIVE),
    claims=judge_arms,
    draw=_draw,
    variants=VARIANTS,
    central=[
        *(f"{what}-{slug(arm)}" for what in ("active", "associated") for arm in PAPER_ACTIVE),
        *("half-active", "more-associated", "lower-error"),
    ],
    central_arms=(CLEAN, NOISY),
)
