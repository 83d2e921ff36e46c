"""Label smoothing makes the clusters of the classes tighter: Cornacchia et al., §6.5; Müller et al. (2019), Fig. 1.

The penultimate layer is the hidden layer of a network with one. How tight its clusters are is the variance of its
activations within classes over that between the classes' means, see `lnsgd.measures.class_variance`.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from rich.table import Table

from lnsgd.data import MNIST
from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import BEYOND, CONTROL, Claim, judge
from lnsgd.figures.framework.configs import read_setting
from lnsgd.figures.framework.figure import Figure, Runs, Scale
from lnsgd.figures.framework.results import epochs, measured, weights
from lnsgd.figures.framework.style import BLUE, GREEN, ORANGE, PURPLE, draw_band, mean_and_deviation, plain
from lnsgd.runs.folder import RunFolder

STANDARD, SMOOTH, NOISY = "p = 0", "smoothing 0.1", "label noise 0.1"
COLORS = {STANDARD: BLUE, SMOOTH: ORANGE, NOISY: GREEN}
SOURCE = "Cornacchia et al., §6.5"

# The three classes that are projected onto a plane, with their colours, and how many test images of each.
CLASSES = {3: BLUE, 5: ORANGE, 8: PURPLE}
SHOWN = 300


def tightness(run: RunFolder, split: str) -> np.ndarray:
    """Return the variance within classes over that between them at the end, one number for each seed, (R,)."""
    return measured(run, "class_variance_ratio", split).last


def test_error(run: RunFolder) -> np.ndarray:
    """Return the error on the test set at the end, in percent, (R,)."""
    return 100 * measured(run, "error", "test").last


def _claims(runs: Runs) -> list[Claim]:
    def over_standard(arm: str, split: str) -> np.ndarray:
        return tightness(runs[arm], split) / tightness(runs[STANDARD], split)

    how = "within- over between-class variance of the hidden layer, over that of p = 0 with the same seed"
    return [
        *(
            judge(
                f"smoothing-tighter-{split}",
                f"label smoothing: tighter clusters ({how}, {name})",
                STATEMENTS["smoothing-clusters"],
                paper="more tightly packed",
                measured=over_standard(SMOOTH, split),
                high=1.0,
            )
            for split, name in (("train", "training set"), ("test", "test set"))
        ),
        judge(
            "noise-tighter",
            f"label noise: tighter clusters ({how}, test set)",
            BEYOND,
            source=SOURCE,
            paper="not said",
            measured=over_standard(NOISY, "test"),
            high=1.0,
        ),
        judge(
            "learns",
            "every arm learns: largest test error of the three in percent",
            CONTROL,
            source=SOURCE,
            paper="not said",
            measured=np.max([test_error(run) for run in runs.values()], axis=0),
            high=10.0,
        ),
    ]


def _table(runs: Runs) -> Table:
    table = Table("arm", title="At the end, mean ± standard deviation over seeds")
    for column in ("within/between\ntraining set", "within/between\ntest set", "test error %", "neurons of\none class"):
        table.add_column(column, no_wrap=True)
    for arm, run in runs.items():
        table.add_row(
            arm,
            mean_and_deviation(tightness(run, "train"), ".3f"),
            mean_and_deviation(tightness(run, "test"), ".3f"),
            mean_and_deviation(test_error(run), ".2f"),
            mean_and_deviation(measured(run, "associated_count", "train").last, ".0f"),
        )
    return table


def hidden_layer(run: RunFolder, images: np.ndarray) -> np.ndarray:
    """Return the activations of the hidden layer of the first seed's network on images (n, 784), (n, hidden)."""
    weight, bias = (weights(run, f"layers.0.{name}")[0] for name in ("weight", "bias"))
    return np.maximum(images @ weight.T + bias, 0)


def plane_of_templates(templates: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the plane through three templates, as Müller et al. (2019, sec. 3) choose it.

    The templates of three classes are their rows of the last layer's weights. The plane goes through the three points;
    its basis is that of their differences.

    Args:
        templates: (3, d).

    Returns:
        Basis (d, 2), orthonormal; the first vector points from the first to the second template.
    """
    basis, upper = np.linalg.qr((templates[1:] - templates[0]).T)
    return basis * np.sign(np.diag(upper))


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(15, 4), layout="constrained")
    *planes, over_epochs = picture.subplots(1, 4)
    images, labels = _test_images(runs[STANDARD])
    for axis, letter, (arm, run) in zip(planes, "abc", runs.items()):
        _draw_plane(axis, run, images, labels)
        axis.set_title(f"({letter}) {arm}: three digits, one seed", fontsize=10)
    planes[0].set(xlabel="plane of the three digits' output weights")
    for arm, run in runs.items():
        found = measured(run, "class_variance_ratio", "test")
        draw_band(over_epochs, epochs(run, found.steps)[1:], found.values[:, 1:], COLORS[arm], arm)
    seeds = len(tightness(runs[STANDARD], "test"))
    over_epochs.set(xlabel="epoch", ylabel="variance within / between classes", ylim=(0, None))
    over_epochs.set_title(f"(d) tightness on the test set, {seeds} seeds", fontsize=10)
    over_epochs.legend(frameon=False, fontsize=9)
    for axis in (*planes, over_epochs):
        plain(axis)
    return picture


def _test_images(run: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    """Return test images of the three classes, (n, 784), and their labels, as the network of a run gets them."""
    data: dict[str, Any] = {name: read_setting(run.config, f"data.{name}") for name in ("data_dir", "source")}
    mnist = MNIST(**data).variant(0)
    labels = mnist.splits["test"].labels.numpy()
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:SHOWN] for digit in CLASSES])
    images = mnist.transform(mnist.splits["test"].inputs[chosen])
    return images.flatten(1).double().numpy(), labels[chosen]


def _draw_plane(axis: Axes, run: RunFolder, images: np.ndarray, labels: np.ndarray) -> None:
    """Draw the hidden layer on test images of three classes, projected onto the plane of their templates."""
    templates = weights(run, "layers.1.weight")[0][list(CLASSES)]
    places = (hidden_layer(run, images) - templates[0]) @ plane_of_templates(templates)
    for digit, color in CLASSES.items():
        axis.plot(*places[labels == digit].T, "o", color=color, markersize=2.5, alpha=0.5, markeredgewidth=0)
        axis.annotate(
            str(digit),
            places[labels == digit].mean(0),
            ha="center",
            va="center",
            fontsize=14,
            weight="bold",
            bbox={"facecolor": "white", "edgecolor": color, "alpha": 0.8, "pad": 2},
        )
    axis.set_aspect("equal", adjustable="datalim")


FIGURE = Figure(
    name="cornacchia-clusters",
    title="Label smoothing makes the clusters of the classes tighter (Cornacchia et al., §6.5)",
    config="figures/cornacchia-clusters.yaml",
    scales={
        "ci": Scale(
            seeds=2,
            options=[
                *("--data.source", "sample", "--data.subset", "2000", "--trainer.max_epochs", "20"),
                *("--model.lr_scheduler.step_size", "12"),
            ],
        ),
        "paper": Scale(seeds=10),
    },
    arms={
        STANDARD: [],
        SMOOTH: ["--model.label_noise", "LabelSmoothing", "--model.label_noise.p", "0.1"],
        NOISY: ["--model.label_noise", "UniformNoise", "--model.label_noise.p", "0.1"],
    },
    table=_table,
    comparison=_table,
    claims=_claims,
    draw=_draw,
)
