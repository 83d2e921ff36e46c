"""Norms of the weight matrices grow with the width, but the distance does not: Nagarajan and Kolter, section 6."""

import pandas as pd
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.figures.framework.claims import Claim, judge, slug
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE
from lnsgd.figures.nagarajan.shared import (
    SETTINGS,
    A,
    C,
    distances,
    draw_lines,
    logarithmic,
    mean_and_spread,
    power_laws,
)
from lnsgd.figures.nagarajan.statements import STATEMENTS
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep import load_trajectories

CONFIG = "figures/nagarajan-norms.yaml"

# The second hidden layer, whose weight matrix is H × H.
HIDDEN = "net.layers.1.weight"
FROBENIUS, SPECTRAL = f"norm/{HIDDEN}", f"spectral_norm/{HIDDEN}"
FROBENIUS_PRODUCT, SPECTRAL_PRODUCT = "norm_product", "spectral_norm_product"
NORMS = (FROBENIUS, SPECTRAL, FROBENIUS_PRODUCT, SPECTRAL_PRODUCT)
INITIAL, TRAINED = "initially", "trained"

# The largest difference from a stated exponent of H, and the largest exponent that counts as flat.
TOLERANCE = 0.05
FLAT = 0.1


def norms(run: RunFolder) -> pd.DataFrame:
    """Return H, seed and the norms of every cell, before and after training as the two rows ``when``.

    A cell that did not satisfy its stopping rule has no numbers after training.
    """
    trained = distances(run)[["cell", "H", "seed", "r", *NORMS]]
    measured = load_trajectories(run.path)
    first = measured[measured.step == 0]
    names = first.measure.where(first.layer == "", first.measure + "/" + first.layer)
    wide = first.assign(name=names)[names.isin(NORMS)].pivot(index="cell", columns="name", values="value")
    initial = trained[["cell", "H", "seed"]].merge(wide.reset_index(), on="cell").assign(r=0.0)
    return pd.concat([initial.assign(when=INITIAL), trained.assign(when=TRAINED)], ignore_index=True)


def _claims(runs: Runs) -> list[Claim]:
    return [claim for arm, run in runs.items() for claim in _judge_arm(arm, norms(run))]


def _judge_arm(arm: str, cells: pd.DataFrame) -> list[Claim]:
    def exponents(norm: str, when: str) -> list[float]:
        return power_laws(cells[cells.when == when], "H", norm, ["seed"]).exponents

    claims = []
    for when in (INITIAL, TRAINED):
        claims += [
            judge(
                f"{slug(arm)}-{when}-frobenius",
                f"{arm}: Frobenius norm of the second hidden layer's weights, {when}: exponent of H",
                STATEMENTS["origin"],
                paper=0.5,
                measured=exponents(FROBENIUS, when),
                low=0.5 - TOLERANCE,
                high=0.5 + TOLERANCE,
            ),
            judge(
                f"{slug(arm)}-{when}-spectral",
                f"{arm}: their spectral norm, {when}: exponent of H",
                STATEMENTS["spectral"],
                paper="flat",
                measured=exponents(SPECTRAL, when),
                low=-FLAT,
                high=FLAT,
            ),
            judge(
                f"{slug(arm)}-{when}-frobenius-product",
                f"{arm}: product of the Frobenius norms of all layers, {when}: exponent of H",
                STATEMENTS["frobenius-product"],
                # Three matrices are H × H; the first and the last have one fixed side.
                paper="grows",
                measured=exponents(FROBENIUS_PRODUCT, when),
                low=1.5,
            ),
        ]
    return [
        *claims,
        judge(
            f"{slug(arm)}-trained-spectral-product",
            f"{arm}: product of the spectral norms of all layers, trained: exponent of H",
            STATEMENTS["spectral-product"],
            paper="does not grow",
            measured=exponents(SPECTRAL_PRODUCT, TRAINED),
            high=FLAT,
        ),
    ]


def _table(runs: Runs) -> Table:
    table = Table("arm", "H", "", "‖W₂‖_F", "‖W₂‖₂", "∏‖W‖_F", "∏‖W‖₂", "r", title="W₂: second hidden layer")
    for arm, run in runs.items():
        for (hidden, when), group in norms(run).groupby(["H", "when"]):
            numbers = (mean_and_spread(group[name]) for name in (*NORMS, "r"))
            table.add_row(arm, f"{hidden:,}", str(when), *numbers)
    return table


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(12, 4.2 * len(runs)), layout="constrained")
    for row, (arm, run) in zip(picture.subplots(len(runs), 3, squeeze=False), runs.items()):
        cells = norms(run)
        trained = cells[cells.when == TRAINED]
        for axis, norm, name in (
            (row[0], FROBENIUS_PRODUCT, "product of the layers' Frobenius norms"),
            (row[1], SPECTRAL_PRODUCT, "product of the layers' spectral norms"),
        ):
            draw_lines(axis, cells, "H", norm, by="when", label="{}", colors=(GREY, BLUE))
            axis.set(ylabel=name)
        for name, color, label in ((FROBENIUS, ORANGE, "$\\|W_2\\|_F$"), (SPECTRAL, GREEN, "$\\|W_2\\|_2$")):
            draw_lines(row[2], trained, "H", name, by="when", label=f"{label}, trained", colors=(color,))
        draw_lines(row[2], trained, "H", "r", by="when", label="distance r from $\\theta_0$", colors=(BLUE,))
        row[0].set_yscale("log")
        row[1].set_ylim(0, None)
        row[2].set(ylim=(0, None), ylabel="norm")
        for axis in row:
            logarithmic(axis.xaxis, cells.H)
            axis.set(title=arm, xlabel="H, units of each of the four hidden layers")
    return picture


FIGURE = Figure(
    name="nagarajan-norms",
    title="Norms of weight matrices grow with the width, the distance does not (Nagarajan & Kolter, section 6)",
    config={A: CONFIG, C: CONFIG},
    scales={
        "ci": Scale(
            seeds=2,
            options=["--data.source", "sample", "--data.subset", "256"],
            grids={C: SETTINGS[C].grid([160, 80, 40])},
        ),
        "paper": Scale(
            seeds=3,
            options=["--data.subset", "1024"],
            grids={A: SETTINGS[A].grid([320, 160, 80, 40]), C: SETTINGS[C].grid([1280, 640, 320, 160, 80, 40])},
        ),
        # For GPUs.
        "full": Scale(
            seeds=5,
            options=["--data.subset", "4096"],
            grids={arm: SETTINGS[arm].grid([5120, 2560, 1280, 640, 320, 160, 80, 40]) for arm in (A, C)},
        ),
    },
    arms={arm: SETTINGS[arm].options for arm in (A, C)},
    table=_table,
    claims=_claims,
    draw=_draw,
)
