"""One point: on the unit sphere, of uniform direction, keyed by the seed."""

import numpy as np
import pytest
import torch
from scipy import stats

from lnsgd.data import SinglePoint
from tests.tolerances import STANDARD_ERRORS

RARE = stats.norm.sf(STANDARD_ERRORS)
SPLITS = ("train", "val", "test")


def ready(**options) -> SinglePoint:
    data = SinglePoint(**options)
    data.setup()
    return data


@pytest.mark.parametrize("split", SPLITS)
def test_one_input_of_norm_one_and_its_label(split):
    data = ready(dimension=4, label=2.5)
    examples = data.splits[split]
    assert examples.inputs.shape == (1, 4)
    assert examples.inputs.norm().item() == pytest.approx(1, rel=1e-6)
    assert examples.labels.tolist() == [[2.5]]
    assert examples.labels.is_floating_point()
    assert data.num_classes is None
    assert torch.equal(examples.inputs, data.splits["train"].inputs)


def test_direction_is_uniform():
    """In three dimensions each coordinate of a uniform direction is uniform on [−1, 1]."""
    base = ready()
    directions = np.array([base.variant(seed).splits["train"].inputs[0].tolist() for seed in range(500)])
    for coordinate in directions.T:
        assert RARE < stats.kstest(coordinate, "uniform", (-1, 2)).pvalue < 1 - RARE


def test_direction_is_keyed_by_the_seed():
    def inputs(seed):
        return ready(seed=seed).splits["train"].inputs

    assert torch.equal(inputs(1), inputs(1))
    assert not torch.allclose(inputs(1), inputs(2))
    assert torch.equal(ready(seed=0).variant(2).splits["train"].inputs, inputs(2))


def test_every_batch_is_the_point():
    data = ready(label=-1)
    (batch,) = data.train_dataloader()
    assert torch.equal(batch.inputs, data.splits["train"].inputs)
    assert batch.labels.tolist() == [[-1.0]]


@pytest.mark.parametrize(
    ("options", "message"), [({"dimension": 0}, "dimension = 0"), ({"subset": 2}, "subset = 2")], ids=["d", "subset"]
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ready(**options)
