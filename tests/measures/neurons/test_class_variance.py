"""The variance within and between classes agrees with sums over examples, and adds up to the total variance."""

import pytest
import torch
from torch import nn

from lnsgd.measures import class_variance
from lnsgd.measures.evaluation import Share
from lnsgd.models import ResNet20


def data_of(sizes=(7, 5, 1), classes=4):
    """Batches of images; no example has the last label."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, 3, 8, 8, generator=generator), torch.randint(classes - 1, (size,), generator=generator))
        for size in sizes
    ]


def by_hand(rows, labels):
    """Within and between as sums over pairs of an example and its class."""
    within = between = 0.0
    for row, label in zip(rows, labels):
        mean = rows[labels == label].mean(0)
        within += (row - mean).square().sum().item()
        between += (mean - rows.mean(0)).square().sum().item()
    return within / len(rows), between / len(rows)


def test_as_sums_over_examples():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 4)).double()
    data = [(inputs.double() + 50, labels) for inputs, labels in data_of()]
    inputs, labels = (torch.cat(parts) for parts in zip(*data))
    found = class_variance(net, data)
    assert list(found) == ["3"]
    with torch.no_grad():
        rows = net[:3](inputs)
    assert (found["3"].within, found["3"].between) == pytest.approx(by_hand(rows, labels), rel=1e-10)
    total = (rows - rows.mean(0)).square().sum(1).mean().item()
    assert found["3"].within + found["3"].between == pytest.approx(total, rel=1e-10)
    assert found["3"].ratio == pytest.approx(found["3"].within / found["3"].between, rel=1e-6)
    # By name, the inputs of any module; here the images.
    of_images = class_variance(net, data, layers=["1"])["1"]
    assert (of_images.within, of_images.between) == pytest.approx(by_hand(inputs.flatten(1), labels), rel=1e-10)


def test_penultimate_layer_of_a_resnet_in_two_processes():
    torch.manual_seed(0)
    net, data = ResNet20(width=4), data_of((6, 4), classes=10)
    whole = class_variance(net, data)["linear"]
    sums = []  # of the first process, in the order in which they are reduced

    def keep(values):
        sums.append(values)
        return values

    own = [(inputs[rank::2], labels[rank::2]) for inputs, labels in data for rank in [0]]
    others = [(inputs[1::2], labels[1::2]) for inputs, labels in data]
    class_variance(net, own, share=Share(0, 2, keep))
    kept = iter(sums)
    both = class_variance(net, others, share=Share(1, 2, lambda values: values + next(kept)))["linear"]
    assert (both.within, both.between) == pytest.approx((whole.within, whole.between), rel=1e-6)


def test_not_finite_and_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    (inputs, labels), *_ = data = data_of((5,))
    inputs[2, 0, 0, 0] = torch.inf
    assert torch.tensor(class_variance(net, data)["1"].within).isnan()
    with pytest.raises(ValueError, match="labels go from 0 to 7; the network has 4 classes"):
        class_variance(net, [(inputs, torch.tensor([0, 1, 7, 2, 3]))])
    with pytest.raises(ValueError, match="one class index for each example"):
        class_variance(net, [(inputs, labels.float())])
    with pytest.raises(ValueError, match=r"has no nn\.Linear"):
        class_variance(nn.Sequential(nn.Flatten()), data)
    with pytest.raises(ValueError, match="data is empty"):
        class_variance(net, [])
