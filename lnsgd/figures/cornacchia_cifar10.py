"""Label smoothing makes a ResNet-20 on CIFAR-10 sparse where it is deep: Cornacchia et al., section 6.4."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import config, epochs, last_by_layer, measured
from lnsgd.figures.style import BLUE, GREEN, ORANGE, draw_band, label_beside, mark_paper, plain
from lnsgd.run_folder import RunFolder

STANDARD, SMOOTH, NOISY = "p = 0", "smoothing 0.1", "label noise 0.1"
SOURCE = "Cornacchia et al., §6.4"

# The paper's numbers: percent of the 4,096 units of the last activation site that are active.
PAPER_ACTIVE = {STANDARD: 46.9, SMOOTH: 27.5}

# How close to a number of the paper counts as reproduced.
RELATIVE = 0.2

# "Slightly above 92 %", for both.
PAPER_ACCURACY = (91.5, 93.0)

# What the paper trains: how wide a network, on how many images (all) and for how many epochs.
PAPER_WIDTH, PAPER_SUBSET, PAPER_EPOCHS = 16, None, 200

# In percent; guessing gives 10, and of 1,000 images this is five standard errors more.
ABOVE_CHANCE = 15.0

# The site before pooling belongs to the last stage.
LAST_STAGE = "layer3"

LINES: dict[str, dict[str, Any]] = {
    STANDARD: {"color": BLUE, "linewidth": 2.2},
    SMOOTH: {"color": ORANGE, "linewidth": 2.2},
    NOISY: {"color": GREEN, "linewidth": 1.2},
}


def _accuracy(run: RunFolder) -> np.ndarray:
    """In percent on the test set, or on what was held out; (R,)."""
    return 100 * (1 - measured(run, "error", "val").last)


def _active(run: RunFolder) -> pd.DataFrame:
    """Percent of units that are active on the training set at the end: R rows, 19 sites in order of depth."""
    return 100 * last_by_layer(run, "active_fraction", "train")


def _of_last_stage(by_site: pd.DataFrame) -> np.ndarray:
    """The columns of the sites in it."""
    return by_site.filter(like=f".{LAST_STAGE}.").to_numpy()


def _papers_network(run: RunFolder) -> bool:
    """Whether a run trains the paper's network on the paper's data."""
    settings = config(run)
    width = settings["model"]["init_args"]["net"]["init_args"]["width"]
    return (width, settings["data"]["init_args"]["subset"]) == (PAPER_WIDTH, PAPER_SUBSET)


def _papers_run(run: RunFolder) -> bool:
    """Whether it does so for as long as the paper."""
    return _papers_network(run) and config(run)["trainer"]["max_epochs"] == PAPER_EPOCHS


def _judged_on(run: RunFolder) -> str:
    """What accuracy is measured on: the test set, unless something was held out."""
    held_out = config(run)["data"]["init_args"]["val_size"]
    return f"{held_out:,} held-out images" if held_out else "test set"


def _claims(runs: Runs) -> list[Claim]:
    """What the paper says, as far as a run can: its numbers of its own run, sparsity of its own network and data.

    Of a narrow network on a few images and after a few epochs no site is reliably sparser with smoothing.
    """
    end = f"epoch {epochs(runs[STANDARD], measured(runs[STANDARD], 'error', 'val').steps)[-1]:.0f}"
    claims = _numbers(runs, end) if _papers_run(runs[STANDARD]) else _learns(runs, end)
    return claims + _sparser(runs, end) if _papers_network(runs[STANDARD]) else claims


def _sparser(runs: Runs, end: str) -> list[Claim]:
    """What smoothing does to the sites, paired by seed."""
    ratios = _active(runs[SMOOTH]) / _active(runs[STANDARD])
    of_last_stage = _of_last_stage(ratios)
    return [
        judge(
            f"smoothing makes the last site sparser (ratio, training set, {end})",
            source=SOURCE,
            paper=PAPER_ACTIVE[SMOOTH] / PAPER_ACTIVE[STANDARD],
            measured=ratios.iloc[:, -1].tolist(),
            high=1.0,
        ),
        judge(
            f"smoothing makes every site of {LAST_STAGE} sparser (largest of {of_last_stage.shape[1]} ratios, "
            f"training set, {end})",
            source=SOURCE,
            paper="deeper layers sparser",
            measured=of_last_stage.max(axis=1).tolist(),
            high=1.0,
        ),
    ]


def _numbers(runs: Runs, end: str) -> list[Claim]:
    """The numbers that the paper gives; they are of its own network."""
    low, high = PAPER_ACCURACY
    accuracies = [
        judge(
            f"{arm}: accuracy in % ({_judged_on(runs[arm])}, {end})",
            source=SOURCE,
            paper="slightly above 92",
            measured=_accuracy(runs[arm]).tolist(),
            low=low,
            high=high,
        )
        for arm in PAPER_ACTIVE
    ]
    return accuracies + [
        judge(
            f"{arm}: active units of the last site in % (training set, {end})",
            source=SOURCE,
            paper=number,
            measured=_active(runs[arm]).iloc[:, -1].tolist(),
            low=number * (1 - RELATIVE),
            high=number * (1 + RELATIVE),
        )
        for arm, number in PAPER_ACTIVE.items()
    ]


def _learns(runs: Runs, end: str) -> list[Claim]:
    """Of a smaller network or a shorter run."""
    return [
        judge(
            f"{arm}: learns, accuracy in % well above the 10 of guessing ({_judged_on(runs[arm])}, {end})",
            source=SOURCE,
            paper="above 92 at epoch 200",
            measured=_accuracy(runs[arm]).tolist(),
            low=ABOVE_CHANCE,
        )
        for arm in PAPER_ACTIVE
    ]


def _table(runs: Runs) -> Table:
    table = Table("arm", title="After training, mean ± standard deviation over seeds")
    for column in ("accuracy %", "train\naccuracy %", "active %,\nlast site", f"active %,\n{LAST_STAGE}", "distance"):
        table.add_column(column, no_wrap=True)
    for arm, run in runs.items():
        active = _active(run)
        table.add_row(
            arm,
            _spread(_accuracy(run), ".2f"),
            f"{100 * (1 - measured(run, 'error', 'train').last.mean()):.2f}",
            _spread(active.iloc[:, -1].to_numpy(), ".1f"),
            _spread(_of_last_stage(active).mean(axis=1), ".1f"),
            f"{measured(run, 'distance_from_init').last.mean():.1f}",
        )
    return table


def _spread(values: np.ndarray, digits: str) -> str:
    spread = f" ± {values.std(ddof=1):{digits}}" if len(values) > 1 else ""
    return f"{values.mean():{digits}}{spread}"


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(12, 5), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=[1, 1.5])
    for arm in reversed(LINES):  # the paper's arms above the other
        curves = measured(runs[arm], "error", "val")
        label = arm if arm in PAPER_ACTIVE else f"{arm} (not in the paper)"
        draw_band(left, epochs(runs[arm], curves.steps), 100 * (1 - curves.values), label=label, **LINES[arm])
        _draw_sites(right, _active(runs[arm]).to_numpy(), LINES[arm])
    left.set(xlabel="epoch", ylabel="accuracy (%)", title=f"Accuracy, {_judged_on(runs[STANDARD])}", xlim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    left.set_ylim(0, None)
    if _papers_run(runs[STANDARD]):
        left.set_ylim(70, 95)  # the first epochs are below
        mark_paper(left, 92, "paper:\nslightly\nabove\n92 %", "black")
    sites = _active(runs[STANDARD]).columns.tolist()
    _name_stages(right, sites)
    _mark_paper(right, len(sites), _papers_run(runs[STANDARD]))
    right.set(ylabel="active units (%)", title="Active units of every site at the end, training set")
    right.set_ylim(0, 1.1 * right.get_ylim()[1])  # room for the stages' names
    handles, labels = left.get_legend_handles_labels()
    seeds = len(_accuracy(runs[STANDARD]))
    title = f"mean ± s.d. over {seeds} seeds" if seeds > 1 else None
    picture.legend(
        handles[::-1], labels[::-1], title=title, loc="outside lower center", ncols=len(LINES), frameon=False
    )
    plain(left)
    plain(right)
    return picture


def _draw_sites(axis: Axes, active: np.ndarray, line: Mapping[str, Any]) -> None:
    """Mean over seeds of the active units (R, 19) of every site, bars for one standard deviation."""
    depth = np.arange(1, active.shape[1] + 1)
    spread = active.std(axis=0, ddof=1) if len(active) > 1 else None
    axis.errorbar(depth, active.mean(axis=0), yerr=spread, marker="o", markersize=4, capsize=2, **line)


def _name_stages(axis: Axes, sites: list[str]) -> None:
    """A tick for every site, bands and names for the stages that they belong to."""
    stages = [site.split(".")[1] if site.count(".") > 1 else "stem" for site in sites]
    for number, stage in enumerate(dict.fromkeys(stages)):
        first = stages.index(stage) + 0.5
        last = first + stages.count(stage)
        if number % 2:
            axis.axvspan(first, last, color="black", alpha=0.05, linewidth=0)
        axis.annotate(
            stage,
            ((first + last) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
            color="dimgrey",
        )
    axis.set(xlim=(0, len(sites) + 0.5), xticks=range(1, len(sites) + 1), xlabel="activation site, by depth")
    axis.tick_params(axis="x", labelsize=8)


def _mark_paper(axis: Axes, last: int, papers_run: bool) -> None:
    """The paper's numbers, stars at the last site; paler where the run is no match for the paper's."""
    for arm, number in PAPER_ACTIVE.items():
        color = LINES[arm]["color"]
        axis.plot(last, number, "*", color=color, markersize=15, markeredgecolor="black", clip_on=False, zorder=3)
        label = f"paper\n{number} %" if papers_run else f"paper, fully\ntrained\n{number} %"
        label_beside(axis, number, label, color)


FIGURE = Figure(
    name="cornacchia-cifar10",
    title="Label smoothing makes a ResNet-20 on CIFAR-10 sparse where it is deep (Cornacchia et al., §6.4)",
    config="figures/cornacchia-cifar10.yaml",
    replicated=False,  # batch normalization
    scales={
        # A quarter as wide, on 2,000 images, with smaller batches and a rate that is smaller by as much. 1,000 others
        # are held out: the test set would take as long as training.
        "ci": Scale(
            seeds=1,
            options=[
                *("--model.net.width", "4", "--data.subset", "2000", "--data.val_size", "1000"),
                *("--data.batch_size", "32", "--model.optimizer.lr", "0.025"),
                *("--trainer.max_epochs", "4", "--model.lr_scheduler.milestones", "[2, 3]"),
            ],
        ),
        # The whole network on all images, for minutes on a GPU.
        "quick": Scale(seeds=1, options=["--trainer.max_epochs", "30", "--model.lr_scheduler.milestones", "[15, 22]"]),
        "paper": Scale(seeds=3),
    },
    arms={
        STANDARD: [],
        SMOOTH: ["--model.label_noise", "LabelSmoothing", "--model.label_noise.p", "0.1"],
        NOISY: ["--model.label_noise", "UniformNoise", "--model.label_noise.p", "0.1"],
    },
    table=_table,
    claims=_claims,
    draw=_draw,
)
