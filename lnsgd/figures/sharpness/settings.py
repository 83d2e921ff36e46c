"""Other activations, unequal output weights, and 1-SAM: what else becomes of rank one, by Gatmiry et al.

The instances are those of `lnsgd.figures.sharpness.rank_one`. The gradient flow of the trace on the manifold of zero
loss is computed for z⁵ + νz with output weights of one, and for z³ + νz and z⁵ + νz with unequal ones; and 1-SAM,
without label noise, trains the network of the paper's Fig. 1a. Chosen here: ν = 0.1; output weights U[½, 2]; ρ = 0.2.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd import rng
from lnsgd.data import SphereInputs
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.figure import COMPUTED, Figure, Runs, Scale
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, PURPLE, plain
from lnsgd.figures.sharpness.odd_networks import OddNetwork, one_sam, second_over_first
from lnsgd.figures.sharpness.shared import PAPER, RANK_TOLERANCE
from lnsgd.figures.sharpness.statements import STATEMENTS
from lnsgd.measures.closed_forms import projected_flow, retract
from lnsgd.untrusted.tables import read_parquet

NEURONS, NU, INIT_STD = 10, 0.1, 0.3

QUINTIC, CUBIC_UNEQUAL, QUINTIC_UNEQUAL = "z⁵ + νz", "z³ + νz, unequal weights", "z⁵ + νz, unequal weights"
FLOWS = {QUINTIC: (5, False), CUBIC_UNEQUAL: (3, True), QUINTIC_UNEQUAL: (5, True)}
SAM, SGD = "1-SAM", "SGD"
COLORS = {QUINTIC: PURPLE, CUBIC_UNEQUAL: BLUE, QUINTIC_UNEQUAL: GREEN, SAM: ORANGE, SGD: GREY}

# The last s of the flows, at which they are stationary unless φ‴ nearly vanishes.
LAST, LOOKS = 200.0, 40

# η of the paper's Fig. 1a. A step of 1-SAM moves θ by ηρ²/n of the flow, so that these steps are s = 30.
LR, RADIUS, STEPS, SGD_STEPS = 0.05, 0.2, 45_000, 20_000

# Why a flow of z⁵ + νz may not reach rank one.
WHY_QUINTIC = (
    "φ‴ = 60z² vanishes at zero, against Assumption 1, so that an instance with a target near zero takes arbitrarily "
    "long"
)


def _compute(seed: int) -> pd.DataFrame:
    """Compute rows of one instance: paths of σ₂/σ₁, and what there is at the end."""
    rows = [row for name, (power, unequal) in FLOWS.items() for row in _flow(name, problem(seed, power, unequal), seed)]
    plain_problem = problem(seed, 3, False)
    for name, radius, steps in ((SAM, RADIUS, STEPS), (SGD, 0.0, SGD_STEPS)):
        found = one_sam(plain_problem, initial(seed), LR, radius, steps, LOOKS, seed)
        rows += _measure(name, plain_problem, {step: retract(plain_problem, at) for step, at in found.items() if step})
    return pd.DataFrame(rows)


def problem(seed: int, power: int, unequal: bool) -> OddNetwork:
    """Return the instance of a seed, with output weights of one or of U[½, 2]."""
    train = SphereInputs().variant(seed).splits["train"]
    output_weights = torch.ones(NEURONS, dtype=torch.float64)
    if unequal:
        drawn = torch.rand(NEURONS, dtype=torch.float64, generator=rng.generator(seed, "init", 1))
        output_weights = 0.5 + 1.5 * drawn
    return OddNetwork(train.inputs.double(), train.labels[:, 0].double(), output_weights, power, NU)


def initial(seed: int) -> torch.Tensor:
    """Draw the weights before training, (1, m, d)."""
    draw = rng.generator(seed, "init", 0)
    return INIT_STD * torch.randn(1, NEURONS, 3, dtype=torch.float64, generator=draw)


def _flow(name: str, of: OddNetwork, seed: int) -> list[dict[str, Any]]:
    times = np.geomspace(0.01, LAST, LOOKS)
    start = _fitted(of, initial(seed))
    return _measure(name, of, dict(zip(times.tolist(), projected_flow(of, start, times.tolist()))))


def _fitted(of: OddNetwork, weights: torch.Tensor) -> torch.Tensor:
    """Train by descent until Gauss-Newton steps lead to zero loss."""
    for _ in range(20_000):
        residuals = of.residuals(weights)
        weights = weights - 0.02 * (residuals[..., None, None] * of.jacobian(weights)).sum(1)
        if residuals.abs().max() < 1e-3:
            break
    return retract(of, weights)


def _measure(name: str, of: OddNetwork, path: dict[Any, torch.Tensor]) -> list[dict[str, Any]]:
    """Measure σ₂/σ₁ of φ″(ΘX), and at the end how much w_jφ″(θ_j·x_i) differs between neurons."""
    rows = []
    for at, weights in path.items():
        bends = of.bends(of.preactivations(weights))[0]
        scaled = of.output_weights[:, None] * bends
        spread = ((scaled - scaled.mean(0)).abs().amax(0) / scaled.mean(0).abs()).max()
        rows.append({"setting": name, "at": at, "ratio": second_over_first(bends), "spread": float(spread)})
    return rows


def path(runs: Runs, setting: str) -> pd.DataFrame:
    """Return σ₂/σ₁ of φ″(ΘX) of a setting: a row for each s (or step), a column for each instance."""
    table = read_parquet(runs[COMPUTED].measures)
    return table[table["setting"] == setting].pivot(index="at", columns="seed", values="ratio")


def spread(runs: Runs, setting: str) -> np.ndarray:
    """Return the largest relative difference of a w_jφ″(θ_j·x_i) from its mean over neurons, at the end, (S,)."""
    table = read_parquet(runs[COMPUTED].measures)
    table = table[table["setting"] == setting]
    return table[table["at"] == table["at"].max()].sort_values("seed")["spread"].to_numpy()


def _claims(runs: Runs) -> list[Claim]:
    rank = {name: path(runs, name).iloc[-1].to_numpy() for name in (*FLOWS, SAM, SGD)}
    within = f"fraction of instances, σ₂/σ₁ ≤ {RANK_TOLERANCE:g}"
    return [
        judge(
            "quintic-rank-one",
            f"{QUINTIC}: the flow reaches features of rank one (φ″ of them, {within}, s = {LAST:g})",
            STATEMENTS["odd-activations"],
            paper="rank one",
            measured=rank[QUINTIC] <= RANK_TOLERANCE,
            low=1.0,
            deterministic=True,
            why=WHY_QUINTIC,
        ),
        *(
            judge(
                f"{'cubic' if FLOWS[name][0] == 3 else 'quintic'}-unequal-rank-one",
                f"{name}: the flow reaches φ″(ΘX) of rank one ({within}, s = {LAST:g})",
                STATEMENTS["unequal-weights"],
                paper="rank one",
                measured=rank[name] <= RANK_TOLERANCE,
                low=1.0,
                deterministic=True,
                why=WHY_QUINTIC if FLOWS[name][0] == 5 else "",
            )
            for name in (CUBIC_UNEQUAL, QUINTIC_UNEQUAL)
        ),
        judge(
            "cubic-unequal-equation",
            f"{CUBIC_UNEQUAL}: w_jφ″(θ_j·x_i) is the same for all neurons (largest relative difference from the mean)",
            STATEMENTS["unequal-weights"],
            paper=0.0,
            measured=spread(runs, CUBIC_UNEQUAL),
            high=0.02,
        ),
        judge(
            "one-sam-rank-one",
            f"1-SAM, z³ + νz: features of rank one after {STEPS:,} steps ({within}, at the nearest zero of the loss)",
            STATEMENTS["one-sam"],
            paper="rank one",
            measured=rank[SAM] <= RANK_TOLERANCE,
            low=1.0,
            deterministic=True,
        ),
        judge(
            "sgd-rank",
            "SGD without perturbation: σ₂/σ₁ of the features at the end",
            CONTROL,
            source=f"{PAPER}, Fig. 1a",
            paper="not rank one",
            measured=rank[SGD],
            low=0.1,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 3.9), layout="constrained")
    flows, sam = picture.subplots(1, 2)
    for axis, names, label in ((flows, FLOWS, "s"), (sam, (SGD, SAM), "steps")):
        for name in names:
            _draw_paths(axis, path(runs, name), COLORS[name], name)
        axis.axhline(RANK_TOLERANCE, color=GREY, linestyle=":", linewidth=1.2)
        axis.set(xscale="log", yscale="log", ylim=(1e-6, 1.5), xlabel=label)
        axis.legend(frameon=False, fontsize=9, loc="lower left")
        plain(axis)
    flows.set(ylabel="σ₂/σ₁ of φ″(ΘX)")
    flows.set_title("(a) flow on the manifold of zero loss, each instance", fontsize=10)
    sam.set_title(f"(b) z³ + νz, η = {LR}, ρ = {RADIUS}, each instance", fontsize=10)
    return picture


def _draw_paths(axis: Axes, paths: pd.DataFrame, color: str, label: str) -> None:
    lines = axis.plot(paths.index, np.maximum(paths.to_numpy(), 1e-9), color=color, linewidth=0.9, alpha=0.7)
    lines[0].set_label(label)


FIGURE = Figure(
    name="sharpness-settings",
    title="Other activations, unequal output weights and 1-SAM: what becomes of rank one (Gatmiry et al.)",
    scales={"ci": Scale(seeds=3), "paper": Scale(seeds=20)},
    compute=_compute,
    claims=_claims,
    draw=_draw,
)
