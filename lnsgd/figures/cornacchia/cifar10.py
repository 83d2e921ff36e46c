"""Label smoothing makes a ResNet-20 on CIFAR-10 sparse where it is deep: Cornacchia et al., section 6.4."""

from collections.abc import Iterable

import numpy as np
from rich.table import Table

from lnsgd.figures.cornacchia.cifar10_picture import draw
from lnsgd.figures.cornacchia.cifar10_runs import (
    LAST_STAGE,
    NOISY,
    PAPER_ACTIVE,
    SMOOTH,
    SOURCE,
    STANDARD,
    accuracy,
    active_percent,
    cluster_ratio,
    has_curvature,
    has_papers_network,
    is_papers_run,
    select_last_stage,
    trace_by_stage,
    validation_images,
)
from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge, slug
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import epochs, measured
from lnsgd.figures.framework.style import mean_and_deviation

# A number within this relative distance of the paper's counts as reproduced.
RELATIVE = 0.2

# The paper says "slightly above 92 %" for both arms.
PAPER_ACCURACY = (91.5, 93.0)

# In percent. Guessing gives 10; on 1,000 images this is five standard errors more.
ABOVE_CHANCE = 15.0

# Curvature, which costs more than everything else that is measured: on a few images and to a coarse tolerance, the
# trace every epoch and λ_max every fifth.
CURVATURE = [
    *("--trainer.callbacks+=lnsgd.callbacks.HessianTrace", "--trainer.callbacks.examples", "250"),
    *("--trainer.callbacks.rtol", "0.1", "--trainer.callbacks.max_overhead", "null"),
    *("--trainer.callbacks+=lnsgd.callbacks.TopEigenvalues", "--trainer.callbacks.examples", "250"),
    *("--trainer.callbacks.rtol", "0.02", "--trainer.callbacks.max_products", "60"),
    *("--trainer.callbacks.every_n_epochs", "5", "--trainer.callbacks.max_overhead", "null"),
]


def _claims(runs: Runs) -> list[Claim]:
    """Judge the paper's numbers if the run is the paper's, and its sparsity if network and data are the paper's.

    In a narrow network, on few images and after few epochs, no site is reliably sparser with smoothing.
    """
    end = f"epoch {epochs(runs[STANDARD], measured(runs[STANDARD], 'error', 'val').steps)[-1]:.0f}"
    if is_papers_run(runs[STANDARD]):
        return [*_judge_numbers(runs, end), *_judge_sparsity(runs, end)]
    if has_papers_network(runs[STANDARD]):
        return [*_judge_learning(runs, end), *_judge_short(runs, end), *_judge_sparsity(runs, end)]
    return _judge_learning(runs, end)


def _judge_sparsity(runs: Runs, end: str) -> list[Claim]:
    """Judge the effect of smoothing on the sites, paired by seed."""
    ratios = active_percent(runs[SMOOTH]) / active_percent(runs[STANDARD])
    of_last_stage = select_last_stage(ratios)
    return [
        judge(
            "last-sparser",
            f"smoothing makes the last site sparser (ratio, training set, {end})",
            STATEMENTS["cifar10-sparser"],
            paper=PAPER_ACTIVE[SMOOTH] / PAPER_ACTIVE[STANDARD],
            measured=ratios.iloc[:, -1],
            high=1.0,
        ),
        judge(
            "last-most-pronounced",
            f"the last site's ratio is the smallest (over the smallest of the other sites, training set, {end})",
            STATEMENTS["cifar10-penultimate"],
            paper="most pronounced",
            measured=ratios.iloc[:, -1] / ratios.iloc[:, :-1].min(axis=1),
            high=1.0,
        ),
        judge(
            "stage-sparser",
            f"smoothing makes every site of {LAST_STAGE} sparser (largest of {of_last_stage.shape[1]} ratios, "
            f"training set, {end})",
            STATEMENTS["cifar10-deeper"],
            paper="deeper layers sparser",
            measured=of_last_stage.max(axis=1),
            high=1.0,
        ),
        judge(
            "smoothing-clusters",
            "smoothing packs the clusters of the classes more tightly (variance within classes over that between "
            f"their means, last hidden layer, as a ratio to that of p = 0, training set, {end})",
            STATEMENTS["smoothing-clusters"],
            paper="tighter",
            measured=cluster_ratio(runs[SMOOTH]) / cluster_ratio(runs[STANDARD]),
            high=1.0,
        ),
    ]


def _judge_numbers(runs: Runs, end: str) -> list[Claim]:
    """Judge the numbers of the paper, which hold for its own network."""
    low, high = PAPER_ACCURACY
    accuracies = [
        judge(
            f"{slug(arm)}-accuracy",
            f"{arm}: accuracy in % ({validation_images(runs[arm])}, {end})",
            STATEMENTS["cifar10-accuracy"],
            paper="slightly above 92",
            measured=accuracy(runs[arm]),
            low=low,
            high=high,
        )
        for arm in PAPER_ACTIVE
    ]
    return accuracies + [
        judge(
            f"{slug(arm)}-active",
            f"{arm}: active units of the last site in % (training set, {end})",
            STATEMENTS["cifar10-active"],
            paper=number,
            measured=active_percent(runs[arm]).iloc[:, -1],
            low=number * (1 - RELATIVE),
            high=number * (1 + RELATIVE),
        )
        for arm, number in PAPER_ACTIVE.items()
    ]


def _judge_short(runs: Runs, end: str) -> list[Claim]:
    """Judge what a shortened schedule should keep: the same accuracy, and the ratio of the paper's numbers."""
    low, high = PAPER_ACCURACY
    ratio = PAPER_ACTIVE[SMOOTH] / PAPER_ACTIVE[STANDARD]
    return [
        judge(
            "same-accuracy",
            f"shortened schedule: smoothing leaves the accuracy as it is (difference in points, test set, {end})",
            STATEMENTS["cifar10-accuracy"],
            paper=0.0,
            measured=accuracy(runs[SMOOTH]) - accuracy(runs[STANDARD]),
            low=low - high,
            high=high - low,
        ),
        judge(
            "last-ratio",
            f"shortened schedule: active units of the last site with smoothing over those without ({end})",
            STATEMENTS["cifar10-active"],
            paper=ratio,
            measured=active_percent(runs[SMOOTH]).iloc[:, -1] / active_percent(runs[STANDARD]).iloc[:, -1],
            low=ratio * (1 - RELATIVE),
            high=ratio * (1 + RELATIVE),
        ),
    ]


def _judge_learning(runs: Runs, end: str) -> list[Claim]:
    """Judge that a smaller network or a shorter run learns at all."""
    return [
        judge(
            f"{slug(arm)}-learns",
            f"{arm}: learns, accuracy in % well above the 10 of guessing ({validation_images(runs[arm])}, {end})",
            CONTROL,
            source=SOURCE,
            paper="above 92 at epoch 200",
            measured=accuracy(runs[arm]),
            low=ABOVE_CHANCE,
        )
        for arm in PAPER_ACTIVE
    ]


def _comparison(runs: Runs) -> Table:
    table = Table("arm", title="After training, mean ± standard deviation over seeds")
    for column in ("accuracy %", "train\naccuracy %", "active %,\nlast site", f"active %,\n{LAST_STAGE}", "distance"):
        table.add_column(column, no_wrap=True)
    for arm, run in runs.items():
        active = active_percent(run)
        table.add_row(
            arm,
            mean_and_deviation(accuracy(run), ".2f"),
            f"{100 * (1 - measured(run, 'error', 'train').last.mean()):.2f}",
            mean_and_deviation(active.iloc[:, -1].to_numpy(), ".1f"),
            mean_and_deviation(select_last_stage(active).mean(axis=1), ".1f"),
            f"{measured(run, 'distance_from_init').last.mean():.1f}",
        )
    return table


def _table(runs: Runs) -> Table:
    """Make the table of clusters and curvature."""
    table = Table("measured at the end", *runs, title="Training set, mean ± standard deviation over seeds")

    def add(name: str, by_arm: Iterable[np.ndarray]) -> None:
        table.add_row(name, *(mean_and_deviation(of_arm, ".3g") for of_arm in by_arm))

    add("variance within / between", (cluster_ratio(run) for run in runs.values()))
    if all(has_curvature(run) for run in runs.values()):
        traces = [trace_by_stage(run) for run in runs.values()]
        add("trace of the Hessian", (of_arm.sum(axis=1).to_numpy() for of_arm in traces))
        for stage in traces[0]:
            add(f"  of {stage}", (of_arm[stage].to_numpy() for of_arm in traces))
        add("largest eigenvalue", (measured(run, "top_eigenvalue_1", "train").last for run in runs.values()))
    return table


FIGURE = Figure(
    name="cornacchia-cifar10",
    title="Label smoothing makes a ResNet-20 on CIFAR-10 sparse where it is deep (Cornacchia et al., §6.4)",
    config="figures/cornacchia-cifar10.yaml",
    replicated=False,  # the network has batch normalization
    scales={
        # A quarter of the width, on 1,000 images, with batch size and step size both a quarter. 500 further images
        # are held out, because the test set would take as long as training.
        "ci": Scale(
            seeds=1,
            options=[
                *("--model.net.width", "4", "--data.subset", "1000", "--data.val_size", "500"),
                *("--data.batch_size", "32", "--model.optimizer.lr", "0.025"),
                *("--trainer.max_epochs", "4", "--model.lr_scheduler.milestones", "[2, 3]"),
            ],
        ),
        # The whole network on all images, with the paper's schedule shortened to 30 epochs, in the number format and
        # the order of memory in which a CPU is fastest: an arm takes hours on two cores.
        "cpu": Scale(
            seeds=1,
            options=[
                *("--trainer.max_epochs", "30", "--model.lr_scheduler.milestones", "[15, 22]"),
                *("--trainer.precision", "bf16-mixed", "--model.channels_last", "true"),
                *CURVATURE,
            ],
        ),
        "paper": Scale(seeds=3, options=CURVATURE),
    },
    arms={
        STANDARD: [],
        SMOOTH: ["--model.label_noise", "LabelSmoothing", "--model.label_noise.p", "0.1"],
        NOISY: ["--model.label_noise", "UniformNoise", "--model.label_noise.p", "0.1"],
    },
    table=_table,
    comparison=_comparison,
    claims=_claims,
    draw=draw,
)
