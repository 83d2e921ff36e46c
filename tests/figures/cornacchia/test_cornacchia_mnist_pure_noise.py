"""Pure noise on MNIST: which step sizes kill all neurons, claims, picture, and the scale of the pixels."""

import numpy as np
import pandas as pd
import torch

from lnsgd.figures.cornacchia.mnist_pure_noise import ARM, BYTE_PIXELS, FIGURE, UNIT_PIXELS, alive, smallest_deadly
from lnsgd.figures.framework.figure import Runs
from tests.figures.handmade import handmade, within_bounds

SIZES = [1.0, UNIT_PIXELS, 0.01, BYTE_PIXELS]


def runs_of(folder, of) -> Runs:
    """Write a run of two seeds whose fraction alive at the end is a function of step size and seed."""
    settings = [{"seed": seed, "lr": size} for size in SIZES for seed in range(2)]
    ends = np.array([[0.5, of(s["lr"], s["seed"])] for s in settings])
    return {ARM: handmade(folder, [0, 100], {("active_fraction", "train", "net.activations.0"): ends}, settings)}


def test_smallest_deadly_step_size_has_only_deadly_ones_above_it():
    sizes = [0.001, 0.01, 0.1, 1.0]
    fractions = pd.DataFrame({0: [0.3, 0.0, 0.0, 0.0], 1: [0.0, 0.1, 0.0, 0.0], 2: [0.1] * 4}, index=sizes)
    np.testing.assert_array_equal(smallest_deadly(fractions), [0.01, 0.1, np.nan])


def test_claims_read_the_two_ranges_of_pixels(tmp_path):
    runs = runs_of(tmp_path / "run", lambda h, seed: 0.0 if h >= 0.01 else 0.2 + 0.1 * seed)
    assert alive(runs[ARM]).index.tolist() == sorted(SIZES)
    claims = {claim.id: claim for claim in FIGURE.claims(runs)}
    assert [name for name, claim in claims.items() if not within_bounds(claim)] == ["unit-pixels-dead"]
    assert claims["unit-pixels-dead"].measured == 0.25
    assert claims["smaller-step"].measured == 0.01
    FIGURE.draw(runs).savefig(tmp_path / "picture.png")


def test_larger_pixels_are_a_larger_step_size():
    """SGD with pixels from 0 to 255 and step size h has the neurons of pixels from 0 to 1 with 255 h."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 6, dtype=torch.float64, generator=generator)
    labels = 2 * torch.randint(2, (40,), generator=generator).double() - 1
    start = 2 * torch.rand(8, 6, dtype=torch.float64, generator=generator) - 1
    signs = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)

    def train(scale: float, size: float) -> torch.Tensor:
        weights = start.clone().requires_grad_()
        for x, y in zip(scale * images, labels):
            (gradient,) = torch.autograd.grad(torch.relu(-y * (signs @ torch.relu(weights @ x))), weights)
            weights = (weights - size * gradient).detach().requires_grad_()
        return weights.detach()

    torch.testing.assert_close(train(255.0, 1e-3), train(1.0, 0.255))
