"""Other activations and output weights: derivatives, 1-SAM, claims on handmade rows, and the picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lnsgd import rng
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.sharpness.odd_networks import OddNetwork, one_sam, second_over_first
from lnsgd.figures.sharpness.settings import (
    CUBIC_UNEQUAL,
    FIGURE,
    FLOWS,
    QUINTIC,
    QUINTIC_UNEQUAL,
    SAM,
    SGD,
    initial,
    problem,
)
from lnsgd.runs.folder import RunFolder
from tests.figures.handmade import within_bounds
from tests.tolerances import EXACT

SEEDS = 2


def of_norm_one(seed: int, power: int, unequal: bool) -> OddNetwork:
    """Return an instance with inputs of norm one in float64; those of the data are rounded to float32."""
    of = problem(seed, power, unequal)
    return replace(of, inputs=of.inputs / of.inputs.norm(dim=1, keepdim=True))


def outputs(of: OddNetwork, weights: torch.Tensor) -> torch.Tensor:
    """Compute Σ_j w_j φ(θ_j·x_i) from the definition."""
    z = of.inputs @ weights[0].T
    return (z**of.power + of.nu * z) @ of.output_weights


@pytest.mark.parametrize("power", [3, 5])
def test_derivatives_are_those_of_autograd(power):
    of, weights = of_norm_one(0, power, unequal=True), initial(0)
    torch.testing.assert_close(of.residuals(weights)[0], outputs(of, weights) - of.targets, **EXACT)
    jacobian = torch.autograd.functional.jacobian(lambda theta: outputs(of, theta), weights)
    torch.testing.assert_close(of.jacobian(weights)[0], jacobian[:, 0], **EXACT)
    torch.testing.assert_close(of.regularizer(weights)[0], jacobian.square().sum(), **EXACT)
    leaf = weights.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(of.regularizer(leaf).sum(), leaf)
    torch.testing.assert_close(of.regularizer_gradient(weights), gradient, **EXACT)
    z = of.preactivations(weights).requires_grad_()
    (bends,) = torch.autograd.grad(of.slopes(z).sum(), z)
    torch.testing.assert_close(of.bends(z), bends, **EXACT)


@pytest.mark.parametrize("radius", [0.0, 0.2])
def test_one_sam_takes_the_steps_of_its_definition(radius):
    of, weights, lr, steps = of_norm_one(1, 3, unequal=False), initial(1), 0.05, 30
    found = one_sam(of, weights, lr, radius, steps, looks=4, seed=1)
    order = torch.randint(len(of.inputs), (steps,), generator=rng.generator(1, "order")).tolist()

    def gradient(theta: torch.Tensor, i: int) -> torch.Tensor:
        leaf = theta.clone().requires_grad_()
        return torch.autograd.grad((outputs(of, leaf)[i] - of.targets[i]).square(), leaf)[0]

    theta = weights
    for i in order:
        ascent = gradient(theta, i)
        theta = theta - lr * gradient(theta + radius * ascent / ascent.norm(), i)
    torch.testing.assert_close(found[steps], theta, rtol=1e-9, atol=1e-12)
    assert found[0] is weights


def test_second_over_first():
    assert second_over_first(torch.diag(torch.tensor([4.0, 1.0, 0.5]))) == pytest.approx(0.25)


def runs_of(folder: Path, changes: dict[str, tuple[float, float]] | None = None) -> Runs:
    """Write rows that end with these σ₂/σ₁ and differences between neurons."""
    ends = {**dict.fromkeys((*FLOWS, SAM), (1e-4, 1e-4)), SGD: (0.4, 1.0), **(changes or {})}
    rows = [
        {"seed": seed, "setting": name, "at": at, "ratio": ratio, "spread": spread}
        for seed in range(SEEDS)
        for name, end in ends.items()
        for at, (ratio, spread) in ((1.0, (0.5, 1.0)), (10.0, end))
    ]
    run = RunFolder(folder)
    pd.DataFrame(rows).to_parquet(run.measures)
    return {"computed": run}


BROKEN = {
    "as-in-the-paper": ({}, set()),
    "quintic": ({QUINTIC: (0.1, 0.1)}, {"quintic-rank-one"}),
    "cubic-unequal": ({CUBIC_UNEQUAL: (0.1, 0.1)}, {"cubic-unequal-rank-one", "cubic-unequal-equation"}),
    "quintic-unequal": ({QUINTIC_UNEQUAL: (0.1, 0.1)}, {"quintic-unequal-rank-one"}),
    "sam": ({SAM: (0.1, 0.1)}, {"one-sam-rank-one"}),
    "sgd": ({SGD: (0.01, 0.1)}, {"sgd-rank"}),
}


@pytest.mark.parametrize(("changes", "fail"), BROKEN.values(), ids=BROKEN)
def test_claims_on_handmade_rows(changes, fail, tmp_path):
    claims = FIGURE.claims(runs_of(tmp_path, changes))
    assert {claim.id for claim in claims if not within_bounds(claim)} == fail
    assert {claim.n for claim in claims} == {SEEDS}


def test_draws(tmp_path):
    picture = FIGURE.draw(runs_of(tmp_path))
    picture.savefig(tmp_path / "picture.png")
    assert [len(axis.lines) for axis in picture.axes] == [3 * SEEDS + 1, 2 * SEEDS + 1]
    assert all(np.isfinite(line.get_ydata()).all() for axis in picture.axes for line in axis.lines)
