"""A few labelled points leave few classes of tanh units: Blanc et al., § 1.2.

The network is that of Theorem 3, with 20 tanh units, on k points with ‖x‖ = 1 in three dimensions and targets U[0, 1].
A unit's class is its vector of activations at the k points with its output weight; both signs of a unit may change.
The paper expects O(k) classes of activations where the regularizer cannot fall any further. Theorem 3 has two for one
point; here at most 2k classes that are not zero are demanded.
"""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from lnsgd.data import SphereInputs
from lnsgd.figures.blanc.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import replicas, weights
from lnsgd.figures.framework.style import BLUE, GREY, ORANGE, plain, seeds_title
from lnsgd.measures import cluster_count
from lnsgd.runs.folder import RunFolder

CONFIG = "figures/blanc-single-point.yaml"
UNITS = read_setting(shipped_config(CONFIG), "model.net.widths")[1]

POINTS = (2, 3, 6)

# Units whose activations and output weights are this close count as one, and as zero if this close to zero.
TOLERANCE = 0.05


def noisy(points: int) -> str:
    """Return the name of the arm with label noise."""
    return f"{points} points"


def clean(points: int) -> str:
    """Return the name of the arm without label noise."""
    return f"{points} points, no noise"


def classes_of(inputs: np.ndarray, hidden: np.ndarray, output: np.ndarray) -> int:
    """Count the different units of a network that are not zero, up to the sign of a unit.

    Args:
        inputs: The points, (k, d).
        hidden: Weights of the units, (H, d).
        output: Output weights, (H,).
    """
    units = np.concatenate([np.tanh(hidden @ inputs.T), output[:, None]], 1)
    units = units[np.abs(units).max(1) > TOLERANCE]
    if not len(units):
        return 0
    # The entry of largest magnitude of each unit becomes positive.
    signs = np.sign(np.take_along_axis(units, np.abs(units).argmax(1)[:, None], 1))
    return int(cluster_count(torch.from_numpy(signs * units), TOLERANCE))


def classes(run: RunFolder, points: int) -> list[int]:
    """Count the classes of each seed at the end."""
    hidden, output = weights(run, "layers.0.weight"), weights(run, "layers.1.weight")
    data = SphereInputs(examples=points)
    inputs = [data.variant(int(seed)).splits["train"].inputs.double().numpy() for seed in replicas(run)["seed"]]
    return [classes_of(x, w, c[0]) for x, w, c in zip(inputs, hidden, output)]


def _claims(runs: Runs) -> list[Claim]:
    where = f"not counting zero, up to sign, at the end, tolerance {TOLERANCE}"
    return [
        claim
        for k in POINTS
        for claim in (
            judge(
                f"{k}-points-classes",
                f"{k} points: at most {2 * k} classes of {UNITS} units (in every run; {where})",
                STATEMENTS["points-classes"],
                paper="every run",
                measured=[number <= 2 * k for number in classes(runs[noisy(k)], k)],
                low=1.0,
                deterministic=True,
            ),
            judge(
                f"{k}-points-more",
                f"control, {clean(k)}: more than {2 * k} classes (fraction of runs; {where})",
                CONTROL,
                source="Blanc et al., § 1.2 (its condition)",
                paper="most runs",
                measured=[number > 2 * k for number in classes(runs[clean(k)], k)],
                low=0.5,
            ),
        )
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(6.5, 4.2), layout="constrained")
    axis = picture.subplots()
    for arm, color, label in ((clean, BLUE, "no noise"), (noisy, ORANGE, "label noise")):
        _draw_counts(axis, {k: classes(runs[arm(k)], k) for k in POINTS}, color, label)
    axis.plot(POINTS, [2 * k for k in POINTS], color=GREY, linestyle=":", linewidth=1.2, label="2k")
    axis.set(xlabel="number of points k", xticks=POINTS, ylim=(0, UNITS + 1), yticks=range(0, UNITS + 1, 4))
    axis.set_ylabel(f"classes of {UNITS} units that are not zero")
    title = seeds_title(len(replicas(runs[noisy(POINTS[0])])))
    picture.legend(*axis.get_legend_handles_labels(), title=title, loc="outside right center", frameon=False)
    plain(axis)
    return picture


def _draw_counts(axis: Axes, counts: dict[int, list[int]], color: str, label: str) -> None:
    means, spreads = ([of(counts[k]) for k in counts] for of in (np.mean, np.std))
    axis.errorbar(list(counts), means, spreads, color=color, marker="o", markersize=5, capsize=3, label=label)


FIGURE = Figure(
    name="blanc-few-points",
    title="With label noise few labelled points leave few classes of units (Blanc et al., § 1.2)",
    config=CONFIG,
    scales={
        "ci": Scale(
            seeds=2,
            # Larger steps and more noise, for seconds instead of minutes.
            options=["--model.optimizer.lr", "0.05", "--model.label_noise.std", "1.0"],
            arms={
                **{noisy(k): ["--model.noise_steps", "200000", "--trainer.max_steps", "210000"] for k in POINTS},
                **{clean(k): ["--trainer.max_steps", "50000"] for k in POINTS},
            },
        ),
        "paper": Scale(
            seeds=10,
            arms={
                **{noisy(k): ["--model.noise_steps", "4000000", "--trainer.max_steps", "4050000"] for k in POINTS},
                **{clean(k): ["--trainer.max_steps", "400000"] for k in POINTS},
            },
        ),
    },
    arms={
        arm(k): ["--data", "SphereInputs", "--data.examples", str(k), "--data.batch_size", "1", *options]
        for k in POINTS
        for arm, options in ((noisy, []), (clean, ["--model.label_noise", "NoNoise", "--model.noise_steps", "null"]))
    },
    claims=_claims,
    draw=_draw,
)
