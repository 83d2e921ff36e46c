"""Label noise near a network with zero error, beyond the drift itself: Blanc et al., Definitions 1 and 2, § 3.3, § 1.2.

`lnsgd.figures.blanc.escape` measures the drift. Here networks of the same kind (six tanh units, three examples) answer
what else the paper says of the neighbourhood of a network θ* with zero error:

* After t = η^−1.6 steps with noise of unit variance the distance from θ* is of order η^0.4 and R has fallen by that
  order, but near a stationary point of R the distance stays below η^0.44 (Definitions 1 and 2 of the version of 2022).
* In the steep directions, the eigenvectors of mean ∇h∇hᵀ with an eigenvalue γ_j > 0, the weights become isotropic and
  uncorrelated, in a time that varies inversely with γ_j: E θ_j² = ηVar(1 − e^{−4ηγ_j t}).
* Two copies of each example, with labels y ± δ, do what label noise of standard deviation δ does.
* An explicit regularizer, descent on the mean loss + λR, is a faster way to the same R.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.figures.blanc.near_zero_runs import (
    COPIES_RATE,
    EXPLICIT,
    EXPLICIT_RATE,
    GENERIC,
    NOISE,
    SLOW_RATE,
    STATIONARY,
    WEIGHT,
    WINDOW_RATES,
    compute,
)
from lnsgd.figures.blanc.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.figure import COMPUTED, Figure, Runs, Scale
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, plain
from lnsgd.untrusted.tables import read_parquet

# The exponents of η in Definitions 1 and 2.
DRIFTS, STAYS = 0.4, 0.44


def values(runs: Runs, kind: str) -> np.ndarray:
    """Return the value of a kind that has one row for each seed, (S,)."""
    return _rows(runs, kind).sort_values("seed")["value"].to_numpy()


def exponents(runs: Runs, kind: str, start: str) -> np.ndarray:
    """Fit the exponent of η of each seed, (S,); NaN if a value is not positive."""
    table = _rows(runs, kind)
    table = table[table["start"] == start].pivot(index="seed", columns="lr", values="value")
    return _slopes(np.log(table.columns.to_numpy()), table.to_numpy())


def dependence_on_gamma(runs: Runs, kind: str) -> np.ndarray:
    """Fit the exponent of γ_j over the steep directions of each seed, (S,)."""
    found = [
        _slopes(np.log(rows["gamma"].to_numpy()), rows["value"].to_numpy()[None])[0]
        for _, rows in _rows(runs, kind).groupby("seed")
    ]
    return np.array(found)


def _rows(runs: Runs, kind: str) -> pd.DataFrame:
    table = read_parquet(runs[COMPUTED].measures)
    return table[table["kind"] == kind]


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(y)
    return np.array([np.polyfit(x, row, 1)[0] if np.isfinite(row).all() else np.nan for row in logs])


def _claims(runs: Runs) -> list[Claim]:
    return [*_judge_windows(runs), *_judge_fluctuations(runs), *_judge_alternatives(runs)]


def _judge_windows(runs: Runs) -> list[Claim]:
    fit = f"fit over η = {', '.join(f'{lr:g}' for lr in WINDOW_RATES)}, unit variance"
    return [
        judge(
            "distance",
            f"after η^−1.6 steps: exponent of η in the root mean square distance from θ* ({fit})",
            STATEMENTS["escape-distance"],
            paper=DRIFTS,
            measured=exponents(runs, "distance", GENERIC),
            low=0.3,
            high=STAYS,
        ),
        judge(
            "fall",
            f"after η^−1.6 steps: exponent of η in the fall of R ({fit})",
            STATEMENTS["escape-regularizer"],
            paper=DRIFTS,
            measured=exponents(runs, "fall", GENERIC),
            low=0.3,
            high=0.5,
        ),
        judge(
            "window",
            f"stationary point: exponent of η in the largest distance within η^−1.6 steps ({fit})",
            STATEMENTS["escape-window"],
            paper=f"at least {STAYS:g}",
            measured=exponents(runs, "largest_distance", STATIONARY),
            low=STAYS,
        ),
    ]


def _judge_fluctuations(runs: Runs) -> list[Claim]:
    variances = _rows(runs, "variance").groupby("seed")["value"].mean().to_numpy()
    return [
        judge(
            "isotropic",
            f"steep directions: exponent of γ_j in the variance (η = {SLOW_RATE})",
            STATEMENTS["escape-isotropic"],
            paper=0.0,
            measured=dependence_on_gamma(runs, "variance"),
            low=-0.1,
            high=0.1,
        ),
        judge(
            "variance",
            f"steep directions: variance over ηVar, mean over directions (η = {SLOW_RATE})",
            CONTROL,
            source="derived: stationary covariance η·Var in each",
            paper=1.0,
            measured=variances,
            low=0.9,
            high=1.1,
        ),
        judge(
            "uncorrelated",
            "steep directions: squared correlation of two, above what independent ones give (mean over pairs)",
            STATEMENTS["escape-uncorrelated"],
            paper=0.0,
            measured=values(runs, "correlation"),
            high=0.01,
        ),
        judge(
            "relaxation",
            "steep directions: exponent of γ_j in the time in which the variance approaches its limit",
            STATEMENTS["escape-relaxation"],
            paper=-1.0,
            measured=dependence_on_gamma(runs, "time"),
            low=-1.1,
            high=-0.9,
        ),
    ]


def _judge_alternatives(runs: Runs) -> list[Claim]:
    return [
        judge(
            "copies-drift",
            f"two copies y ± δ: drift in flat directions along that with noise of standard deviation δ, over it "
            f"(η = {COPIES_RATE})",
            STATEMENTS["two-copies"],
            paper=1.0,
            measured=values(runs, "copies_drift"),
            low=0.95,
            high=1.05,
        ),
        judge(
            "copies-variance",
            "two copies y ± δ: mean square deviation in steep directions over that with noise (the same runs)",
            STATEMENTS["two-copies"],
            paper=1.0,
            measured=values(runs, "copies_steep"),
            low=0.9,
            high=1.1,
        ),
        judge(
            "explicit",
            f"steps until half of the excess of R is gone: label noise over descent on the loss + {WEIGHT}·R "
            f"(η = {EXPLICIT_RATE} in both)",
            STATEMENTS["explicit"],
            paper="accelerated",
            measured=values(runs, "speedup"),
            low=10.0,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 8), layout="constrained")
    (windows, isotropy), (times, explicit) = picture.subplots(2, 2)
    _draw_windows(windows, runs)
    _draw_gammas(isotropy, runs, "variance")
    isotropy.axhline(1, color="black", linestyle="--", linewidth=1.2, label="isotropic: ηVar(z)")
    isotropy.set(ylim=(0, 2), ylabel="variance / ηVar(z)")
    isotropy.set_title(f"(b) steep directions: variance, η = {SLOW_RATE}", fontsize=10)
    _draw_gammas(times, runs, "time")
    gammas = np.array([_rows(runs, "time")["gamma"].min(), _rows(runs, "time")["gamma"].max()])
    times.plot(gammas, 1 / (4 * gammas), color="black", linestyle="--", linewidth=1.2, label="1/(4γ)")
    times.set(yscale="log", ylabel="relaxation time of the variance · η")
    times.set_title("(c) steep directions: relaxation time", fontsize=10)
    _draw_explicit(explicit, runs)
    for axis in (windows, isotropy, times, explicit):
        axis.tick_params(labelsize=8)
        axis.legend(frameon=False, fontsize=8)
        plain(axis)
    return picture


def _draw_windows(axis: Axes, runs: Runs) -> None:
    for kind, start, color, marker, power in (
        ("distance", GENERIC, BLUE, "o", DRIFTS),
        ("largest_distance", STATIONARY, ORANGE, "s", 0.5),
    ):
        table = _rows(runs, kind)
        table = table[table["start"] == start].pivot(index="seed", columns="lr", values="value")
        rates = table.columns.to_numpy()
        axis.plot(rates, table.to_numpy().T, marker=marker, markersize=3, linewidth=0.7, color=color, alpha=0.6)
        axis.plot([], [], marker=marker, markersize=4, linewidth=0.7, color=color, label=start)
        middle = np.exp(np.log(table.to_numpy()).mean(axis=0))
        line = middle[-1] * (rates / rates[-1]) ** power
        style = "--" if power == DRIFTS else ":"
        axis.plot(rates, line, color="black", linestyle=style, linewidth=1.4, label=f"∝ η$^{{{power:g}}}$", zorder=4)
    axis.set(xscale="log", yscale="log", xlabel="step size η", ylabel="distance from θ* after η$^{-1.6}$ steps")
    axis.set_xticks(WINDOW_RATES, [f"{rate:g}" for rate in WINDOW_RATES])
    axis.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    axis.minorticks_off()
    axis.set_title("(a) distance, each network", fontsize=10)


def _draw_gammas(axis: Axes, runs: Runs, kind: str) -> None:
    rows = _rows(runs, kind)
    axis.plot(rows["gamma"], rows["value"], "o", markersize=4, color=BLUE, alpha=0.7, label="a direction of a network")
    axis.set(xscale="log", xlabel="eigenvalue γ of mean ∇h∇hᵀ")


def _draw_explicit(axis: Axes, runs: Runs) -> None:
    """Draw the excess of R of the first seed."""
    rows = _rows(runs, "excess")
    rows = rows[rows["seed"] == rows["seed"].min()]
    for way, color in ((NOISE, ORANGE), (EXPLICIT, GREEN)):
        curve = rows[(rows["start"] == way) & (rows["step"] > 0)]
        axis.plot(curve["step"], curve["value"], color=color, marker=".", markersize=4, linewidth=1.2, label=way)
    axis.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2, label="half")
    axis.set(xscale="log", xlabel="steps", ylabel="excess of R, in parts of that of θ*", ylim=(0, 1.05))
    axis.set_title(f"(d) one network: the regularizer made explicit, η = {EXPLICIT_RATE}", fontsize=10)


FIGURE = Figure(
    name="blanc-near-zero",
    title="Near zero error: time windows, isotropic fluctuations, two copies, and R made explicit (Blanc et al.)",
    scales={"ci": Scale(seeds=3), "paper": Scale(seeds=20)},
    compute=compute,
    claims=_claims,
    draw=_draw,
)
