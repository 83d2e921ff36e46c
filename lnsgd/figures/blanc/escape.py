"""Label noise moves a network with zero error along its flat directions: Blanc et al., Theorem 1 and Lemma 6.

A step is θ ← θ − 2η(h(x_i) − y_i − z)∇h(x_i) for a random example i and noise z. From θ* with zero error, T steps move
the flat directions, the null space of the Hessian 2·mean ∇h∇hᵀ, by −2Tη²·Var(z)·Σ_k E_i[h_i^{jk} h_i^k] = −s·∇_jR in
expectation, with R = mean_i ‖∇h(x_i)‖² and s = Tη²·Var(z). The reason: the other (steep) directions fluctuate with
covariance η·Var(z), so that E[(h(x_i) − y_i)∇h(x_i)] has a part η·Var(z)·D²h ∇h, which a step multiplies by −2η. The
steep directions stay within O(√η). There is no drift where P_T ∇R, the part of ∇R in flat directions, is zero.

Over a longer s the direction of the drift changes: dθ/ds = −P_T ∇R (`lnsgd.measures.closed_forms.projected_flow`). All
of this is of first order in η. Higher orders are removed by measuring at several η at the same s and extrapolating to
η = 0 with the polynomial through all of them.

Every number is an average over many runs from the same θ*, in float64, which differ in their samples and noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from torch import Tensor

from lnsgd.figures.blanc.escape_runs import END, EXAMPLES, LOOKS, STD, Start, deviations, instance, steps_to_end
from lnsgd.figures.blanc.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.figure import COMPUTED, Figure, Runs, Scale
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, PURPLE, plain
from lnsgd.records.measures import STDERR
from lnsgd.untrusted.tables import read_parquet

# Step sizes, each half of the one before, with the number of runs at each.
RUNS = {0.04: 512, 0.02: 256, 0.01: 128, 0.005: 64}
COLORS = dict(zip(RUNS, (ORANGE, GREEN, BLUE, PURPLE)))

GENERIC, STATIONARY = "θ*", "stationary point"
EXTRAPOLATED = 0.0  # the value of column ``lr`` for extrapolated numbers


@dataclass(frozen=True)
class Mean:
    """A mean over runs, or a weighted sum of such means.

    Attributes:
        value: (P,).
        covariance: Covariance of the mean (not of a run), (P, P).
    """

    value: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> "Mean":
        """Make the mean of R samples (R, P)."""
        return cls(samples.mean(0), torch.cov(samples.T) / len(samples))

    @classmethod
    def extrapolated(cls, means: Mapping[float, "Mean"]) -> "Mean":
        """Extrapolate means by η to η = 0."""
        factors = zero_weights(list(means))
        value = torch.stack([f * mean.value for f, mean in zip(factors, means.values())]).sum(0)
        return cls(value, torch.stack([f**2 * mean.covariance for f, mean in zip(factors, means.values())]).sum(0))

    def slope(self, direction: Tensor) -> tuple[float, float]:
        """Fit the slope of the P coordinates against those of a direction, with its standard error."""
        square = direction @ direction
        error = (direction @ self.covariance @ direction).sqrt() / square
        return float(self.value @ direction / square), float(error)

    @property
    def size(self) -> tuple[float, float]:
        """The norm, and the root mean square of the norm if the expectation were zero."""
        return float(self.value.norm()), float(self.covariance.trace().sqrt())

    @property
    def excess(self) -> float:
        """The squared norm minus its value for a zero expectation, in standard deviations."""
        size, error = self.size
        return (size**2 - error**2) / float((2 * self.covariance.square().sum()).sqrt())


def zero_weights(rates: Sequence[float]) -> list[float]:
    """Return the weights with which values at these η sum to the value at 0 of the polynomial through all of them."""
    return [prod(other / (other - rate) for other in rates if other != rate) for rate in rates]


def _compute(seed: int) -> pd.DataFrame:
    """Compute rows by start, η and s; and at the last s also for each parameter, and extrapolated to η = 0."""
    rows: list[dict[str, Any]] = []
    starts = dict(zip((GENERIC, STATIONARY), instance(seed)))
    for place, (name, start) in enumerate(starts.items()):
        times = [END * look / LOOKS for look in range(1, LOOKS + 1)]
        flows = start.flat_part((start.flowed(times) - start.weights).flatten(1))
        ends: dict[float, Mean] = {}
        for number, (lr, runs) in enumerate(RUNS.items()):
            # All runs have different seeds, so that their errors are independent.
            first = ((seed * len(starts) + place) * len(RUNS) + number) * max(RUNS.values())
            moved = deviations(start, lr, range(first, first + runs))
            flat = start.flat_part(moved)
            steep = (moved - flat).square().sum(-1).mean(1)
            means = [Mean.of(of_runs) for of_runs in flat]
            for s, mean, flow, square in zip(times, means, flows, steep):
                rows.append({"start": name, "lr": lr, "s": s, "steep": float(square)} | _numbers(start, mean, s, flow))
            ends[lr] = means[-1]
            rows += [{"start": name, "lr": lr, "s": END} | row for row in _parameters(start, means[-1])]
        mean = Mean.extrapolated(ends)
        rows.append({"start": name, "lr": EXTRAPOLATED, "s": times[-1]} | _numbers(start, mean, times[-1], flows[-1]))
    return pd.DataFrame(rows)


def _numbers(start: Start, mean: Mean, s: float, flow: Tensor) -> dict[str, Any]:
    """Return the numbers of a mean displacement in flat directions; slopes have no meaning at a stationary point."""
    lemma = s * start.drift
    numbers: dict[str, Any] = {"kind": "mean", "excess": mean.excess, "predicted_size": float(lemma.norm())}
    numbers["cosine"] = float(mean.value @ lemma / (mean.value.norm() * lemma.norm()))
    numbers["flow_size"] = float(flow.norm())
    numbers["size"], numbers["size_stderr"] = mean.size
    numbers["slope"], numbers["slope_stderr"] = mean.slope(lemma)
    numbers["flow_slope"], numbers["flow_slope_stderr"] = mean.slope(flow)
    return numbers


def _parameters(start: Start, mean: Mean) -> list[dict[str, Any]]:
    predicted = (END * start.drift).tolist()
    measured, errors = mean.value.tolist(), mean.covariance.diagonal().clamp(min=0).sqrt().tolist()
    return [
        {"kind": "parameter", "predicted": p, "measured": m, STDERR: e} for p, m, e in zip(predicted, measured, errors)
    ]


def _means(runs: Runs, start: str, lr: float | None = None) -> pd.DataFrame:
    """Return the rows of a start at the last s, of one η or of all but the extrapolated one; a row per seed and η."""
    table = read_parquet(runs[COMPUTED].measures)
    rows = table[(table["kind"] == "mean") & (table["start"] == start) & (table["s"] == table["s"].max())]
    return rows[rows["lr"] == lr] if lr is not None else rows[rows["lr"] != EXTRAPOLATED]


def steep_squares(runs: Runs) -> pd.DataFrame:
    """Return E‖P_N(θ − θ*)‖² over η·Var(z)·n from θ*, averaged over all s, with a row per seed and a column per η."""
    table = read_parquet(runs[COMPUTED].measures)
    rows = table[(table["kind"] == "mean") & (table["start"] == GENERIC) & (table["lr"] != EXTRAPOLATED)]
    squares = rows.pivot_table(index="seed", columns="lr", values="steep", aggfunc="mean")
    return squares.div(squares.columns.to_numpy() * STD**2 * EXAMPLES)


def exponents(runs: Runs) -> list[float]:
    """Fit the exponent of η in the root mean square deviation in steep directions, for each seed."""
    squares = steep_squares(runs)
    rates = np.log(squares.columns.to_numpy())
    return [float(0.5 * (1 + np.polyfit(rates, np.log(of_seed), 1)[0])) for of_seed in squares.to_numpy()]


def _claims(runs: Runs) -> list[Claim]:
    limit, rest = _means(runs, GENERIC, EXTRAPOLATED), _means(runs, STATIONARY, EXTRAPOLATED)
    # Four standard errors of the mean over seeds of numbers with standard deviation 1.
    sigmas = 4 / sqrt(len(limit))
    smallest, next_one = sorted(RUNS)[:2]
    collapse = [_means(runs, GENERIC, lr)["slope"].to_numpy() for lr in (smallest, next_one)]
    off = [_means(runs, GENERIC, lr)["flow_slope"].to_numpy() - 1 for lr in (smallest, next_one)]
    return [
        judge(
            "slope",
            f"slope of the measured drift on −s·P_T ∇R (at s = {END}, η → 0)",
            STATEMENTS["escape-drift"],
            paper=1.0,
            measured=limit["slope"],
            low=0.9,
            high=1.1,
        ),
        judge(
            "cosine",
            "cosine between the two (the same)",
            STATEMENTS["escape-drift"],
            paper=1.0,
            measured=limit["cosine"],
            low=0.98,
        ),
        judge(
            "flow-slope",
            "slope on the flow of Lemma 6's drift up to s, which also turns (the same)",
            STATEMENTS["escape-drift"],
            paper=1.0,
            measured=limit["flow_slope"],
            low=0.98,
            high=1.02,
        ),
        judge(
            "flow-slope-errors",
            "its difference from 1, in standard errors over runs (the same)",
            STATEMENTS["escape-drift"],
            paper=0.0,
            measured=(limit["flow_slope"] - 1) / limit["flow_slope_stderr"],
            low=-sigmas,
            high=sigmas,
        ),
        judge(
            "collapse",
            f"collapse: drift at the same s = Tη²Var, η = {smallest} over η = {next_one} (four times the steps)",
            STATEMENTS["escape-drift"],
            paper=1.0,
            measured=collapse[0] / collapse[1],
            low=0.9,
            high=1.1,
        ),
        judge(
            "order",
            f"what differs is of order η: slope on the flow minus 1, η = {smallest} over η = {next_one}",
            CONTROL,
            source="derived: half the step, half the difference",
            paper=0.5,
            measured=off[0] / off[1],
            low=0.35,
            high=0.65,
        ),
        *_judge_stationary_point(rest, limit, sigmas),
        *_judge_steep_directions(runs, smallest),
    ]


def _judge_stationary_point(rest: pd.DataFrame, limit: pd.DataFrame, sigmas: float) -> list[Claim]:
    return [
        judge(
            "stationary-drift",
            "stationary point: drift over that from θ* (norms, at the same s, η → 0)",
            STATEMENTS["escape-stationary"],
            paper=0.0,
            measured=rest["size"].to_numpy() / limit["predicted_size"].to_numpy(),
            high=0.02,
        ),
        judge(
            "stationary-excess",
            "stationary point: squared drift above its expectation without any, in standard deviations (the same)",
            STATEMENTS["escape-stationary"],
            paper=0.0,
            measured=rest["excess"],
            low=-sigmas,
            high=sigmas,
        ),
    ]


def _judge_steep_directions(runs: Runs, smallest: float) -> list[Claim]:
    return [
        judge(
            "steep-exponent",
            "steep directions: exponent of η in the root mean square deviation (fit over all η, mean over looks)",
            STATEMENTS["escape-steep"],
            paper=0.5,
            measured=exponents(runs),
            low=0.4,
            high=0.6,
        ),
        judge(
            "steep-variance",
            f"steep directions: mean square deviation over η·Var·n (η = {smallest}, mean over looks)",
            CONTROL,
            source="derived: stationary covariance η·Var in each",
            paper=1.0,
            measured=steep_squares(runs)[smallest],
            low=0.8,
            high=1.2,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 8), layout="constrained")
    (over_time, scatter), (slopes, steep) = picture.subplots(2, 2)
    _draw_time(over_time, runs)
    _draw_parameters(scatter, runs)
    _draw_slopes(slopes, runs)
    _draw_steep(steep, runs)
    for axis in (over_time, scatter, slopes, steep):
        axis.tick_params(labelsize=8)
        axis.legend(frameon=False, fontsize=8)
        plain(axis)
    return picture


def _draw_time(axis: Axes, runs: Runs) -> None:
    """Draw the drift over time of the first seed."""
    table = read_parquet(runs[COMPUTED].measures)
    table = table[(table["kind"] == "mean") & (table["seed"] == table["seed"].min())]
    for name, marker in ((GENERIC, "o"), (STATIONARY, "s")):
        for number, (lr, color) in enumerate(COLORS.items()):
            rows = table[(table["start"] == name) & (table["lr"] == lr)].sort_values("s")
            # Markers of different η are drawn beside each other.
            s = rows["s"] + (number - 1.5) * END / 150
            label = f"η = {lr}, T = {steps_to_end(lr):,}" if name == GENERIC else None
            axis.errorbar(s, rows["size"], 2 * rows["size_stderr"], fmt=marker, markersize=4, color=color, label=label)
    rows = table[(table["start"] == GENERIC) & (table["lr"] == min(RUNS))].sort_values("s")
    s, lemma, flow = (np.concatenate([[0], rows[name]]) for name in ("s", "predicted_size", "flow_size"))
    axis.plot(s, lemma, color="black", linestyle="--", linewidth=1.2, label="Lemma 6: s‖P$_T$∇R‖")
    axis.plot(s, flow, color=GREY, linewidth=1.2, label="its flow")
    axis.plot([], [], "s", color=GREY, markersize=4, label="from a stationary point")
    axis.set(xlabel="s = T η² Var(z)", ylabel="norm of the mean displacement, flat directions", xlim=(0, 1.03 * END))
    axis.set_title("(a) drift over time, one network (bars: 2 standard errors)", fontsize=10)
    axis.set_ylim(bottom=-0.03 * axis.get_ylim()[1])  # so that markers at zero are not cut


def _draw_parameters(axis: Axes, runs: Runs) -> None:
    table = read_parquet(runs[COMPUTED].measures)
    table = table[(table["kind"] == "parameter") & (table["lr"] == min(RUNS))]
    for name, color, marker in ((GENERIC, BLUE, "o"), (STATIONARY, ORANGE, "s")):
        rows = table[table["start"] == name]
        axis.errorbar(
            rows["predicted"],
            rows["measured"],
            2 * rows[STDERR],
            fmt=marker,
            markersize=3.5,
            color=color,
            label=f"from {'a ' if name == STATIONARY else ''}{name}",
            zorder=3 if name == STATIONARY else 2,
        )
    ends = [table["predicted"].min(), table["predicted"].max()]
    axis.plot(ends, ends, color="black", linestyle="--", linewidth=1.2, label="Lemma 6")
    axis.set(xlabel="predicted: −s P$_T$∇R", ylabel="measured mean displacement")
    axis.set_title(f"(b) every weight, all networks, η = {min(RUNS)}, s = {END}", fontsize=10)


def _draw_slopes(axis: Axes, runs: Runs) -> None:
    rows, limit = _means(runs, GENERIC), _means(runs, GENERIC, EXTRAPOLATED)
    for seed, of_seed in rows.groupby("seed"):
        ordered = of_seed.sort_values("lr")
        at_zero = limit[limit["seed"] == seed]
        axis.errorbar(
            ordered["lr"], ordered["flow_slope"], 2 * ordered["flow_slope_stderr"], fmt="o-", markersize=4, color=BLUE
        )
        axis.errorbar(
            at_zero["lr"], at_zero["flow_slope"], 2 * at_zero["flow_slope_stderr"], fmt="D", markersize=5, color=ORANGE
        )
    axis.plot([], [], "o-", color=BLUE, markersize=4, label="a network")
    axis.plot([], [], "D", color=ORANGE, markersize=5, label="extrapolated to η = 0")
    axis.axhline(1, color="black", linestyle="--", linewidth=1.2, label="Lemma 6")
    axis.set(xlabel="step size η", ylabel="measured drift / predicted (flow)")
    axis.set_title(f"(c) slope against the prediction, at the same s = {END}", fontsize=10)


def _draw_steep(axis: Axes, runs: Runs) -> None:
    squares = steep_squares(runs)
    rates = squares.columns.to_numpy()
    theory = np.sqrt(rates * STD**2 * EXAMPLES)
    for of_seed in squares.to_numpy():
        axis.plot(rates, np.sqrt(of_seed) * theory, "o-", markersize=4, linewidth=0.8, color=BLUE)
    flat = _means(runs, GENERIC).groupby("lr")["size"].mean()
    axis.plot(flat.index, flat, "^-", markersize=5, linewidth=0.8, color=ORANGE, label="flat directions: mean drift")
    axis.plot([], [], "o-", markersize=4, linewidth=0.8, color=BLUE, label="steep directions, a network")
    axis.plot(rates, theory, color="black", linestyle="--", linewidth=1.2, label="√(η Var(z) n)")
    axis.set(xscale="log", yscale="log", xlabel="step size η", ylabel="root mean square deviation from θ*")
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.set_yticks([0.01, 0.02, 0.05, 0.1], ["0.01", "0.02", "0.05", "0.1"])
    axis.minorticks_off()
    axis.set_title(f"(d) steep directions stay within O(√η), at the same s = {END}", fontsize=10)


FIGURE = Figure(
    name="blanc-escape",
    title="From zero error, label noise drifts as predicted in flat directions and stays in steep ones (Blanc et al.)",
    scales={"ci": Scale(seeds=3), "paper": Scale(seeds=20)},
    compute=_compute,
    claims=_claims,
    draw=_draw,
)
