"""Pictures of firings and of spectra show the numbers that they are drawn from."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from lnsgd.losses import SquaredLoss
from lnsgd.measures import Firings, associated_class, spectral_density
from lnsgd.measuring.pictures import plot_histograms, plot_spectral_density
from tests.measures.small_problems import mlp, vectors

CLASSES = 4


def random_firings(neurons):
    """Firings with some neurons that are associated and some that are not, and their classes."""
    generator = torch.Generator().manual_seed(0)
    firings = Firings(CLASSES, neurons)
    firings.update(torch.randn(16, neurons, generator=generator), torch.arange(16) % CLASSES)
    return firings.fired, associated_class(firings.fired)


@pytest.mark.parametrize(
    ("neurons", "shown", "expected"),
    [
        pytest.param(4, 30, 4, id="fewer-than-a-row"),
        pytest.param(23, 30, 23, id="unfilled-last-row"),
        pytest.param(23, 6, 6, id="only-the-first"),
    ],
)
def test_histograms_draw_one_chart_per_neuron(neurons, shown, expected):
    fired, classes = random_firings(neurons)
    (axis,) = plot_histograms(fired[:, :shown], classes[:shown]).axes
    bars, ground = axis.collections
    assert len(bars.get_paths()) == CLASSES * expected
    assert len(ground.get_paths()) == expected
    assert [text.get_text() for text in axis.texts if "neuron" in text.get_text()] == [
        f"neuron {unit}" for unit in range(expected)
    ]


def test_histogram_bars_are_the_firings_and_red_exactly_at_the_associated_class():
    fired, found = random_firings(23)
    assert -1 in found.tolist()
    assert max(found.tolist()) >= 0
    (axis,) = plot_histograms(fired, found, columns=6).axes
    bars = axis.collections[0]
    assert len(bars.get_facecolor()) == CLASSES * 23
    for number, (path, color) in enumerate(zip(bars.get_paths(), bars.get_facecolor())):
        c, unit = divmod(number, 23)
        (left, bottom), (right, top) = path.vertices.min(0), path.vertices.max(0)
        assert (top - bottom) * fired[:, unit].max() == pytest.approx(0.62 * fired[c, unit])
        row, column = divmod(unit, 6)  # its chart is a unit square, and its place there that of the class
        assert bottom == pytest.approx(0.16 - row)
        assert int(((left + right) / 2 - column - 0.08) / 0.84 * CLASSES) == c
        assert (tuple(color) == to_rgba("tab:red")) == (c == found[unit])


def test_a_silent_neuron_is_drawn_without_bars():
    (axis,) = plot_histograms(torch.tensor([[0, 3], [0, 1]]), torch.tensor([-1, 0])).axes
    heights = [path.vertices[:, 1].max() - path.vertices[:, 1].min() for path in axis.collections[0].get_paths()]
    assert heights == pytest.approx([0, 0.62, 0, 0.62 / 3])


def spectrum():
    return spectral_density(mlp("tanh"), SquaredLoss("sum"), [vectors()], probes=5, steps=20)


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_a_width_that_is_not_positive_raises(width):
    with pytest.raises(ValueError, match="width = "):
        plot_spectral_density(spectrum(), width=width)


def test_the_picture_shows_the_density_down_to_single_eigenvalues():
    found = spectrum()
    top = torch.tensor([5.4, 4.0], dtype=torch.float64)
    (axis,) = plot_spectral_density(found, top, width=0.2).axes
    curve, marks = axis.lines
    np.testing.assert_allclose(curve.get_ydata(), found.density(torch.as_tensor(curve.get_xdata()), 0.2))
    single = 1 / (43 * 0.2 * np.sqrt(2 * np.pi))
    assert marks.get_xdata().tolist() == top.tolist()
    assert marks.get_ydata() == pytest.approx([single] * 2)
    assert axis.get_yscale() == "log"
    assert axis.get_ylim()[0] == pytest.approx(single / 10)
    low, high = found.range
    assert curve.get_xdata()[0] < low
    assert curve.get_xdata()[-1] > high
    assert len(plot_spectral_density(found).axes[0].lines) == 1
