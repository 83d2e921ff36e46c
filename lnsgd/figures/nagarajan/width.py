"""Generalization error and distance from initialization, against width and sample size.

Nagarajan and Kolter, Fig. 1 (left) and Fig. 2 to 4 with their sub-figures (a) to (d): the generalization error, the
difference between test and training set, against H (a) and m (b), and the distance r against H (c) and m (d). In
Fig. 4 (a) it stays below 0.06, so that their "generalization error" is that of the squared loss; here it is judged for
the error too.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.framework.claims import CONTROL, Claim, judge, slug
from lnsgd.figures.framework.figure import Figure, Runs, Scale, Variant
from lnsgd.figures.framework.style import GREY, plain
from lnsgd.figures.nagarajan.shared import (
    MARGIN,
    SETTINGS,
    A,
    B,
    C,
    distances,
    draw_lines,
    logarithmic,
    mean_and_spread,
    power_laws,
    seed_exponents,
    smallest_ratio,
)
from lnsgd.figures.nagarajan.statements import STATEMENTS

# The paper's "flat or falling", read as an exponent of H up to this.
FLAT = 0.05
# The range of the paper's exponents of m.
LOW, HIGH = 0.25, 0.4
# Ends of the vertical axis of Fig. 4 (d), which is the natural logarithm of r: 1.0 to 3.5.
AXIS = float(np.exp(1.0)), float(np.exp(3.5))


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm, run in runs.items() for claim in _judge_arm(arm, distances(run))]


def _judge_arm(arm: str, cells: pd.DataFrame) -> list[Claim]:
    claims = [
        judge(
            f"{slug(arm)}-width",
            f"{arm}: r does not grow with the width, r ~ H^a, largest a over m",
            STATEMENTS["width-flat"],
            paper="flat or falling",
            measured=seed_exponents(cells, "H", "r", "m", np.max),
            high=FLAT,
        ),
        judge(
            f"{slug(arm)}-samples",
            f"{arm}: r grows with the training set, r at m = {cells.m.max():,} over r at {cells.m.min():,}, "
            "smallest over H",
            STATEMENTS["samples-grow"],
            paper="grows",
            measured=smallest_ratio(cells, "m", "r", "H"),
            low=1.0,
        ),
        judge(
            f"{slug(arm)}-exponent",
            f"{arm}: exponent of r ~ m^a, mean over H",
            STATEMENTS["samples-rates"],
            paper="0.25 … 0.4",
            measured=seed_exponents(cells, "m", "r", "H", np.mean),
            low=LOW,
            high=HIGH,
        ),
        judge(
            f"{slug(arm)}-small-width",
            f"{arm}: r ~ m^a is steeper for smaller H, a at H = {cells.H.min():,} minus a at {cells.H.max():,}",
            STATEMENTS["samples-small-width"],
            paper="steeper",
            measured=seed_exponents(cells, "m", "r", "H", lambda exponents: exponents[0] - exponents[-1]),
            low=0.0,
        ),
    ]
    if arm != MARGIN:  # appendix D is about the squared loss
        claims += [_judge_generalization(arm, cells, name) for name in ("error", "loss")]
    if arm == C:
        claims.append(_judge_axis(arm, cells))
    return claims


def _judge_generalization(arm: str, cells: pd.DataFrame, name: str) -> Claim:
    called = {"error": "classification error", "loss": "squared loss"}[name]
    return judge(
        f"{slug(arm)}-generalization-{name}",
        f"{arm}: generalization error ({called}, test minus train) ~ H^a, mean a over m",
        STATEMENTS["generalization"],
        paper="falls or constant",
        measured=seed_exponents(cells, "H", f"gap/{name}", "m", np.mean),
        high=FLAT,
    )


def _judge_axis(arm: str, cells: pd.DataFrame) -> Claim:
    smallest = cells[cells.m == cells.m.min()].groupby("seed").r.apply(lambda r: float(np.min(r.to_numpy())))
    return judge(
        f"{slug(arm)}-axis",
        f"{arm}: smallest r over H at m = {cells.m.min():,} lies on the axis of Fig. 4 (d), r = 2.7 to 33",
        CONTROL,
        source="Nagarajan & Kolter, Fig. 4 (d)",
        paper="on the axis",
        measured=smallest,
        low=AXIS[0],
        high=AXIS[1],
    )


def _table(runs: Runs) -> Table:
    columns = ("arm", "H", "m", "r", "steps", "test − train error", "test − train loss", "r ~ m^a", "not stopped")
    table = Table(*columns, title="Mean ± s.d. over seeds at the end of training")
    for arm, run in runs.items():
        for hidden, of_width in distances(run).groupby("H"):
            fitted = mean_and_spread(power_laws(of_width, "m", "r", ["seed"]).exponents)
            for m, group in of_width.groupby("m"):
                numbers = [mean_and_spread(group[name]) for name in ("r", "steps", "gap/error", "gap/loss")]
                left = (group.status != "done").sum()
                table.add_row(arm, f"{hidden:,}", f"{m:,}", *numbers, fitted, str(left) if left else "")
                fitted = ""
    return table


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(4.0 * len(runs), 13.5), layout="constrained")
    axes = picture.subplots(4, len(runs), squeeze=False)
    for column, (arm, run) in zip(axes.T, runs.items()):
        cells = distances(run)
        # The paper's figures show the squared loss; that of the margin arm is the cross-entropy.
        gap, name = ("gap/error", "error") if arm == MARGIN else ("gap/loss", "squared loss")
        for axis, y in ((column[0], gap), (column[2], "r")):
            draw_lines(axis, cells, "H", y, by="m", label="m = {:,}")
            axis.set(xlabel="H, units of each hidden layer", ylim=(0, None))
            logarithmic(axis.xaxis, cells.H)
        for axis, y in ((column[1], gap), (column[3], "r")):
            draw_lines(axis, cells, "m", y, by="H", label="H = {:,}")
            axis.set(xlabel="m, training examples", yscale="log")
            logarithmic(axis.xaxis, cells.m)
        _label_exponents(column[3], cells)
        if arm == C:
            column[3].axhspan(*AXIS, color=GREY, alpha=0.12, linewidth=0, label="axis of the paper's Fig. 4 (d)")
            column[3].legend(fontsize=7)
        column[0].set_title(arm)
        for axis, y in zip(column, (f"test − train, {name}",) * 2 + (r"$r = \|\theta - \theta_0\|_2$",) * 2):
            axis.set_ylabel(y)
    return picture


def _label_exponents(axis: Axes, cells: pd.DataFrame) -> None:
    """Write the mean exponent of m into the label of each width."""
    for container, (hidden, of_width) in zip(axis.containers, cells.groupby("H")):
        exponent = np.mean(power_laws(of_width, "m", "r", ["seed"]).exponents)
        container.set_label(f"H = {hidden:,}: $m^{{{exponent:.2f}}}$")
    axis.legend(fontsize=8)
    plain(axis)


_INIT = "--model.net.init"
VARIANTS = {
    "PyTorch's default init": Variant(
        "the text says Xavier; this is what PyTorch does if nothing is said", [_INIT, "lnsgd.models.TorchDefault"]
    ),
    "He init": Variant("gain √2 for ReLU: N(0, 2/fan_in)", [_INIT, "lnsgd.models.HeNormal"]),
    "momentum switched": Variant(
        "momentum 0.9 is stated for A only, and 'without' for C only",
        arms={
            MARGIN: ["--model.optimizer.momentum", "0.0"],
            A: ["--model.optimizer.momentum", "0.0"],
            B: ["--model.optimizer.momentum", "0.9", "--model.optimizer.lr", "0.05"],
            C: ["--model.optimizer.momentum", "0.9", "--model.optimizer.lr", "0.1"],
        },
    ),
    "inputs centred otherwise": Variant(
        "the mean image is subtracted in B only, because it diverges otherwise; here in all arms but B",
        arms={arm: ["--data.center", str(arm != B).lower()] for arm in (MARGIN, A, B, C)},
    ),
}

FIGURE = Figure(
    name="nagarajan-width",
    title="Generalization error and distance against width and sample size (Nagarajan & Kolter, Fig. 1 left, 2 to 4)",
    config={arm: setting.config for arm, setting in SETTINGS.items()},
    scales={
        "ci": Scale(
            seeds=2,
            options=["--data.source", "sample"],
            grids={C: SETTINGS[C].grid([40, 160], [64, 256])},
        ),
        "paper": Scale(
            seeds=5,
            grids={
                MARGIN: SETTINGS[MARGIN].grid([160, 80, 40], [64, 256, 1024]),
                A: SETTINGS[A].grid([320, 160, 40], [64, 256, 1024]),
                B: SETTINGS[B].grid([160, 40], [64, 256, 1024]),
                C: SETTINGS[C].grid([320, 160, 40], [64, 256, 1024]),
            },
        ),
        # For GPUs.
        "full": Scale(
            seeds=10,
            options=["--trainer.max_steps", "4000000"],
            grids={
                arm: setting.grid([5120, 2560, 1280, 640, 320, 160, 80, 40], [64, 256, 1024, 4096, 16384])
                for arm, setting in SETTINGS.items()
            },
        ),
    },
    arms={arm: setting.options for arm, setting in SETTINGS.items()},
    variants=VARIANTS,
    central=[f"{slug(C)}-{name}" for name in ("width", "samples", "exponent", "generalization-loss", "axis")],
    table=_table,
    claims=_claims,
    draw=_draw,
)
