"""Bounds at and around a random initialization, against the width: Nagarajan and Kolter, section 6 and Appendix C.

Nothing is trained. The networks have four hidden layers of H units and ten outputs, Xavier's normal initialization and
biases 0, and the images are those of the MNIST sample that ships with lnsgd, with pixels in [0, 1].

* *Untrained networks.* The distribution of the examples is the uniform one over the sample's 10,000 training images, so
  that the expected loss is exact. The generalization error of a training set is its distance from the mean loss over m
  independent draws; a row has the root mean square over 200 training sets.
* *Networks at a distance r from the initialization.* Appendix C bounds output, gradient and spectral norms of *all*
  networks within a distance r. From the initialization, the weights follow the gradient of one output for one image,
  and are put back to the distances 0.5, 1, 1.5, … after each step: these networks are far worse than trained ones.
  The constant c of the bounds is, by the proofs, the largest spectral norm of an initial weight matrix, if that is more
  than 1; Õ(1) says that it does not depend on H.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor

from lnsgd import rng
from lnsgd.data import MNIST
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.figure import COMPUTED, Figure, Runs, Scale
from lnsgd.figures.framework.style import GREY
from lnsgd.figures.nagarajan.shared import draw_lines, logarithmic, seed_exponents
from lnsgd.figures.nagarajan.statements import STATEMENTS
from lnsgd.losses import SquaredLoss
from lnsgd.measures import norm_products
from lnsgd.models import MLP, XavierNormal
from lnsgd.untrusted.tables import read_parquet

WIDTHS = (40, 80, 160, 320, 640)
LAYERS = 5  # the paper's d
EXAMPLES = (64, 256, 1024, 4096)
TRAINING_SETS = 200
# Steps of this length; the networks at these distances are measured.
STEP, DISTANCES = 0.5, (1.0, 2.0, 4.0, 8.0)

# The largest exponent of H that counts as independent of H, as in nagarajan-norms, and the tolerance of that of m.
FLAT = 0.1
TOLERANCE = 0.05

# For each column the theorem, and what it bounds by cᵈ.
BOUNDS = {
    "output": ("output-bound", "|f(x)| / ((r + 1)ᵈ (‖x‖ + 1))"),
    "gradient": ("gradient-bound", "‖∂f(x)/∂θ‖ / (d (r + 1)ᵈ (‖x‖ + 1))"),
    "spectral": ("spectral-bound", "Π‖Wₖ‖₂ / (r + 1)ᵈ"),
}

UNTRAINED, MOVED = "untrained", "moved"


def compute(seed: int) -> pd.DataFrame:
    """Compute the rows of one seed.

    Returns:
        Columns ``kind``, ``H``, and for ``untrained`` networks ``m``, ``gap_error`` and ``gap_loss`` (the root mean
        square of the generalization errors, for the error and the squared loss) and ``loss``; for ``moved`` ones ``r``,
        ``c``, and ``output``, ``gradient`` and ``spectral``: |f(x)|, ‖∂f(x)/∂θ‖ / d and Π‖Wₖ‖₂ over (r + 1)ᵈ, the first
        two also over ‖x‖ + 1. Theorems C.1 and C.2 and Proposition 6.2 bound each by cᵈ.
    """
    rows: list[dict[str, Any]] = []
    inputs, labels = _examples()
    for hidden in WIDTHS:
        with rng.forked(seed, "init", hidden):
            net = MLP([inputs.shape[1], *[hidden] * (LAYERS - 1), 10], init=XavierNormal())
        rows += [{"kind": UNTRAINED, "H": hidden, **row} for row in _untrained(net, inputs, labels, seed)]
        rows += [{"kind": MOVED, "H": hidden, **row} for row in _moved(net, inputs[seed : seed + 1])]
    return pd.DataFrame(rows)


@cache
def _examples() -> tuple[Tensor, Tensor]:
    """Return the sample's training images (n, 784) in [0, 1] and their labels (n,)."""
    mnist = MNIST(source="sample")
    train = mnist.load(train=True)
    return mnist.transform(train.inputs).flatten(1), train.labels


def _untrained(net: MLP, inputs: Tensor, labels: Tensor, seed: int) -> Iterator[dict[str, float]]:
    with torch.no_grad():
        outputs = net(inputs)
    losses = SquaredLoss()(outputs, labels).double()
    errors = (outputs.argmax(1) != labels).double()
    for m in EXAMPLES:
        draws = torch.randint(len(labels), (TRAINING_SETS, m), generator=rng.generator(seed, "order", m))
        gaps = [(values[draws].mean(1) - values.mean()).square().mean().sqrt().item() for values in (errors, losses)]
        yield {"m": m, "gap_error": gaps[0], "gap_loss": gaps[1], "loss": losses.mean().item()}


def _moved(net: MLP, x: Tensor) -> Iterator[dict[str, float]]:
    """Follow the gradient of the first output at x, (1, 784), and measure the networks at `DISTANCES`."""
    weights = list(net.parameters())
    initial = [weight.detach().clone() for weight in weights]
    scale = x.norm().item() + 1
    norms = norm_products({name: weight.detach() for name, weight in net.named_parameters()}).spectral_norms
    constant = max(1.0, *norms.values())
    for number in range(1, round(max(DISTANCES) / STEP) + 1):
        _, gradient = _output_and_gradient(net, x)
        length = _norm(gradient)
        r = number * STEP
        with torch.no_grad():
            moves = [w - z + STEP * g / length for w, z, g in zip(weights, initial, gradient, strict=True)]
            way = _norm(moves)
            for weight, start, move in zip(weights, initial, moves, strict=True):
                weight.copy_(start + move * (r / way))
        if r in DISTANCES:
            output, gradient = _output_and_gradient(net, x)
            within = (r + 1) ** LAYERS
            spectral = norm_products({n: w.detach() for n, w in net.named_parameters()}).spectral
            yield {
                "r": r,
                "c": constant,
                "output": abs(output) / within / scale,
                "gradient": _norm(gradient) / LAYERS / within / scale,
                "spectral": spectral / within,
            }


def _output_and_gradient(net: MLP, x: Tensor) -> tuple[float, Sequence[Tensor]]:
    output = net(x)[0, 0]
    return output.item(), torch.autograd.grad(output, list(net.parameters()))


def _norm(tensors: Sequence[Tensor]) -> float:
    return sqrt(sum(tensor.double().square().sum().item() for tensor in tensors))


def _rows(runs: Runs, kind: str) -> pd.DataFrame:
    table = read_parquet(runs[COMPUTED].measures)
    return table[table["kind"] == kind].dropna(axis=1, how="all")


def _claims(runs: Runs) -> list[Claim]:
    untrained, moved = _rows(runs, UNTRAINED), _rows(runs, MOVED)
    claims = []
    for column, name in (("gap_error", "error"), ("gap_loss", "squared loss")):
        claims += [
            judge(
                f"untrained-{name.replace(' ', '-')}-width",
                f"untrained networks: generalization error ({name}) ~ H^a, largest a over m",
                STATEMENTS["untrained"],
                paper="independent of H",
                measured=seed_exponents(untrained, "H", column, "m", np.max),
                high=FLAT,
            ),
            judge(
                f"untrained-{name.replace(' ', '-')}-samples",
                f"untrained networks: generalization error ({name}) ~ m^a, mean a over H",
                STATEMENTS["untrained"],
                paper=-0.5,
                measured=seed_exponents(untrained, "m", column, "H", np.mean),
                low=-0.5 - TOLERANCE,
                high=-0.5 + TOLERANCE,
            ),
        ]
    first = untrained[untrained["m"] == EXAMPLES[0]]
    claims.append(
        judge(
            "initial-loss",
            "untrained networks: squared loss ~ H^a",
            STATEMENTS["initial-loss"],
            paper="independent of H",
            measured=seed_exponents(first, "H", "loss", "m", np.max),
            high=FLAT,
        )
    )
    claims.append(
        judge(
            "constant",
            "c, the largest spectral norm of an initial weight matrix: c ~ H^a",
            STATEMENTS["spectral"],
            paper="independent of H",
            measured=seed_exponents(moved, "H", "c", "r", np.max),
            high=FLAT,
        )
    )
    for column, (statement, name) in BOUNDS.items():
        claims += [
            judge(
                statement,
                f"at r = 1 to 8 along the gradient of f(x): {name} / cᵈ, largest over H and r",
                STATEMENTS[statement],
                paper="at most 1",
                measured=(moved[column] / moved["c"] ** LAYERS).groupby(moved["seed"]).max(),
                high=1.0,
                deterministic=True,
            ),
            judge(
                f"{statement}-width",
                f"the same networks: {name} ~ H^a, largest a over r",
                CONTROL,
                source="the bound does not depend on H; does what it bounds?",
                paper="independent of H",
                measured=seed_exponents(moved, "H", column, "r", np.max),
                high=FLAT,
            ),
        ]
    return claims


def _draw(runs: Runs) -> Picture:
    untrained, moved = _rows(runs, UNTRAINED).astype({"m": int}), _rows(runs, MOVED)
    picture = Picture(figsize=(13, 7.6), layout="constrained")
    axes = picture.subplots(2, 3)
    for axis, column, name in ((axes[0, 0], "gap_error", "error"), (axes[0, 1], "gap_loss", "squared loss")):
        draw_lines(axis, untrained, "H", column, by="m", label="m = {:,}")
        axis.set(title=f"untrained: generalization error ({name})", yscale="log")
    draw_lines(axes[0, 2], untrained, "H", "loss", by="kind", label="{} networks")
    axes[0, 2].set(title="squared loss at the initialization", ylim=(0, None))
    for axis, (column, (_, name)) in zip(axes[1], BOUNDS.items()):
        draw_lines(axis, moved, "H", column, by="r", label="r = {:g}")
        bound = moved.assign(bound=moved["c"] ** LAYERS)
        draw_lines(axis, bound, "H", "bound", by="kind", label="bound, cᵈ", colors=(GREY,))
        axis.set(title=name, yscale="log")
    for axis in axes.flat:
        # Room for the legend above the lines, which go all the way across.
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.45 if axis.get_yscale() == "log" else 1.2 * high)
        axis.legend(fontsize=8, loc="upper right", ncols=3)
        axis.set_xlabel("H, units of each of the four hidden layers")
        logarithmic(axis.xaxis, moved["H"])
    return picture


FIGURE = Figure(
    name="nagarajan-initialization",
    title="At and near a random initialization, bounds do not depend on the width (Nagarajan & Kolter, § 6 and App. C)",
    scales={"ci": Scale(seeds=2), "paper": Scale(seeds=10)},
    compute=compute,
    claims=_claims,
    draw=_draw,
)
