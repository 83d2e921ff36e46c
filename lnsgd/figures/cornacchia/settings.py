"""Other batches, step sizes, losses, starts and dimensions leave the main findings as they are: Cornacchia et al., § 6.

The problem is the hypercube of Fig. 1, with one of its settings changed at a time. Networks without noise and with
p = 0.2 are read at the end of training.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import Claim, judge, slug
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import measured
from lnsgd.figures.framework.style import BLUE, ORANGE, plain, seeds_title

CONFIG = "figures/cornacchia-hypercube.yaml"
TEST_SIZE = read_setting(shipped_config(CONFIG), "data.test_size")

BATCH = "batches of 4"
# The changed setting by its name; the paper names batches alone as an example.
SETTINGS = {
    BATCH: ["--data.batch_size", "4"],
    "half the step size": ["--model.optimizer.lr", "0.0083333333"],
    "hinge loss": ["--model.loss", "HingeLoss", "--model.loss.beta", "0"],
    "Gaussian start": [
        "--model.net.init",
        '{"class_path": "lnsgd.models.Normal", "init_args": {"std": 1.0, "biases": true}}',
    ],
    "d = 30": [
        *("--data.dimension", "30", "--model.net.widths", "[30, 120, 1]"),
        *("--model.optimizer.lr", "0.033333333"),
    ],
}
CLEAN, NOISY = 0.0, 0.2
# Without noise a network fits soon and then hardly moves. With it, neurons fall silent until the end, and they do so
# more slowly where steps are shorter or noise is averaged over a batch.
STEPS = {CLEAN: 100_000, NOISY: 560_000}
LONGER = {BATCH: 2, "half the step size": 2}

# What Fig. 1 shows: 94 active neurons without noise and 47 with it.
HALF = 0.5


def arm(setting: str, noise: float) -> str:
    """Return the name of the arm of a setting with a noise level."""
    return f"{setting}, p = {noise:g}"


def _error(runs: Runs, setting: str, noise: float) -> np.ndarray:
    return 100 * measured(runs[arm(setting, noise)], "error", "test").last


def _active(runs: Runs, setting: str, noise: float) -> np.ndarray:
    return measured(runs[arm(setting, noise)], "active_count", "train").last


def _claims(runs: Runs) -> list[Claim]:
    return [claim for setting in SETTINGS for claim in _judge_setting(runs, setting)]


def _judge_setting(runs: Runs, setting: str) -> list[Claim]:
    statement = STATEMENTS["larger-batches" if setting == BATCH else "other-parameters"]
    return [
        judge(
            f"{slug(setting)}-half-active",
            f"{setting}: noise at least halves the active neurons (ratio, end of training)",
            statement,
            paper=HALF,
            measured=_active(runs, setting, NOISY) / _active(runs, setting, CLEAN),
            high=HALF,
        ),
        judge(
            f"{slug(setting)}-lower-error",
            f"{setting}: noise lowers the test error (difference in points, end of training)",
            statement,
            paper="lower",
            measured=_error(runs, setting, NOISY) - _error(runs, setting, CLEAN),
            high=-100 / TEST_SIZE,  # one example
        ),
    ]


def _table(runs: Runs) -> Table:
    table = Table(title="At the end of training, mean ± s.d. over seeds")
    for column in ("setting", "p", "active neurons", "train error %", "test error %"):
        table.add_column(column, no_wrap=True)
    for setting in SETTINGS:
        for noise in STEPS:
            run = runs[arm(setting, noise)]
            numbers = (
                measured(run, "active_count", "train").last,
                100 * measured(run, "error", "train").last,
                100 * measured(run, "error", "test").last,
            )
            table.add_row(setting, f"{noise:g}", *(f"{of.mean():.1f} ± {of.std():.1f}" for of in numbers))
    return table


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 3.8), layout="constrained")
    left, right = picture.subplots(1, 2, sharey=True)
    _draw_pairs(left, runs, "active_count", "train", 1, "active neurons")
    _draw_pairs(right, runs, "error", "test", 100, "test error (%)")
    left.set_yticks(range(len(SETTINGS)), SETTINGS)
    left.invert_yaxis()
    first = next(iter(runs.values()))
    title = seeds_title(len(measured(first, "error", "test").last))
    handles, labels = right.get_legend_handles_labels()
    picture.legend(handles, labels, title=title, loc="outside right center", frameon=False)
    return picture


def _draw_pairs(axis: Axes, runs: Runs, measure: str, split: str, factor: float, label: str) -> None:
    for noise, color, offset in ((CLEAN, BLUE, -0.15), (NOISY, ORANGE, 0.15)):
        values = [factor * measured(runs[arm(setting, noise)], measure, split).last for setting in SETTINGS]
        places = np.arange(len(SETTINGS)) + offset
        errors = [of.std() for of in values]
        axis.barh(places, [of.mean() for of in values], 0.28, xerr=errors, color=color, label=f"p = {noise:g}")
    axis.set(xlabel=f"{label}, end of training", xlim=(0, None))
    plain(axis)


FIGURE = Figure(
    name="cornacchia-settings",
    title="Label noise makes networks sparser and better under other settings too (Cornacchia et al., § 6)",
    config=CONFIG,
    scales={
        "ci": Scale(
            seeds=2,
            options=["--data.test_size", "2000"],
            arms={
                arm(setting, noise): ["--trainer.max_steps", str(steps // 10)]
                for setting in SETTINGS
                for noise, steps in STEPS.items()
            },
        ),
        "paper": Scale(seeds=10),
    },
    arms={
        arm(setting, noise): [
            *options,
            *("--model.label_noise.p", str(noise)),
            *("--trainer.max_steps", str(steps * LONGER.get(setting, 1))),
        ]
        for setting, options in SETTINGS.items()
        for noise, steps in STEPS.items()
    },
    table=_table,
    claims=_claims,
    draw=_draw,
)
