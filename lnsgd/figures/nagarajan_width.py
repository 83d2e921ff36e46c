"""The distance from initialization does not grow with the width: Nagarajan and Kolter, Fig. 1 (left) and 2 to 4."""

import pandas as pd
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.nagarajan import (
    MARGIN,
    SETTINGS,
    A,
    B,
    C,
    distances,
    draw_lines,
    logarithmic,
    power_laws,
    status_table,
)

# "Flat or falling", read as an exponent of H up to this.
FLAT = 0.05


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm, run in runs.items() for claim in _of_arm(arm, distances(run))]


def _of_arm(arm: str, cells: pd.DataFrame) -> list[Claim]:
    ends = cells[cells.m.isin([cells.m.min(), cells.m.max()])].pivot(index=["seed", "H"], columns="m", values="r")
    growth = (ends.iloc[:, 1] / ends.iloc[:, 0]).groupby("seed").min()
    return [
        judge(
            f"{arm}: r does not grow with the width, exponent of r ~ H^a, for every m and seed",
            source=SETTINGS[arm].source,
            paper="flat or falling",
            measured=power_laws(cells, "H", "r", ["m", "seed"]).exponents,
            high=FLAT,
        ),
        judge(
            f"{arm}: r grows with the training set, r at m = {cells.m.max():,} over r at {cells.m.min():,}, "
            "smallest over H",
            source=SETTINGS[arm].source,
            paper="grows",
            measured=growth.tolist(),
            low=1.0,
        ),
    ]


def _table(runs: Runs) -> Table:
    return status_table(runs, ["m", "H"])


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(4.2 * len(runs), 4.2), layout="constrained")
    for axis, (arm, run) in zip(picture.subplots(1, len(runs), squeeze=False)[0], runs.items()):
        cells = distances(run)
        draw_lines(axis, cells, "H", "r", by="m", label="m = {:,}")
        logarithmic(axis.xaxis, cells.H)
        axis.set(title=arm, xlabel="H, units of each of the four hidden layers", ylim=(0, None))
    picture.axes[0].set_ylabel(r"$r = \|\theta - \theta_0\|_2$, mean ± s.d. over seeds")
    return picture


FIGURE = Figure(
    name="nagarajan-width",
    title="The distance from initialization does not grow with the width (Nagarajan & Kolter, Fig. 1 left, 2 to 4)",
    config={arm: setting.config for arm, setting in SETTINGS.items()},
    scales={
        "ci": Scale(
            seeds=2,
            options=["--data.source", "sample"],
            grids={C: SETTINGS[C].grid([40, 160], [64, 256])},
        ),
        "paper": Scale(
            seeds=3,
            grids={
                MARGIN: SETTINGS[MARGIN].grid([320, 160, 80, 40], [64, 256]),
                A: SETTINGS[A].grid([320, 160, 80, 40], [64, 256, 1024, 4096]),
                B: SETTINGS[B].grid([320, 160, 80, 40], [64, 256, 1024]),
                C: SETTINGS[C].grid([640, 320, 160, 80, 40], [64, 256, 1024, 4096]),
            },
        ),
        # For GPUs.
        "full": Scale(
            seeds=5,
            options=["--trainer.max_steps", "2000000"],
            grids={
                arm: setting.grid([5120, 2560, 1280, 640, 320, 160, 80, 40], [64, 256, 1024, 4096, 16384])
                for arm, setting in SETTINGS.items()
            },
        ),
    },
    arms={arm: setting.options for arm, setting in SETTINGS.items()},
    table=_table,
    claims=_claims,
    draw=_draw,
)
