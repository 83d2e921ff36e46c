"""Points on a zigzag: their positions, and what depends on the seed."""

import numpy as np
import pytest
import torch

from lnsgd.data import Points1D


def ready(**options) -> Points1D:
    data = Points1D(**options)
    data.setup()
    return data


def points(data: Points1D, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    chosen = data.splits[split]
    return chosen.inputs[:, 0].double().numpy(), chosen.labels[:, 0].double().numpy()


def zigzag(x: np.ndarray) -> np.ndarray:
    return np.interp(x, [-1, -1 / 3, 1 / 3, 1], [-2 / 3, 2 / 3, -2 / 3, 2 / 3])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_points_are_evenly_spaced_on_the_zigzag(split):
    x, y = points(ready(), split)
    assert len(x) == (12 if split == "train" else 1001)
    np.testing.assert_allclose(x, np.linspace(-1, 1, len(x)), atol=1e-7)
    np.testing.assert_allclose(y, zigzag(x), atol=1e-6)


def test_each_segment_has_four_points_and_turns_have_none():
    x, _ = points(ready())
    assert np.histogram(x, [-1, -1 / 3, 1 / 3, 1])[0].tolist() == [4, 4, 4]
    assert np.abs(np.abs(x) - 1 / 3).min() > 0.05


def test_is_regression_with_batches_of_one_with_replacement():
    data = ready()
    assert (data.num_classes, data.batch_size, data.order) == (None, 1, "replacement")
    assert data.splits["train"].labels.shape == (12, 1)
    assert data.splits["train"].inputs.dtype == data.splits["train"].labels.dtype == torch.float32


def test_seeds_have_the_same_points():
    data = ready(seed=1)
    variant = data.variant(2)
    for split in ("train", "val", "test"):
        assert torch.equal(data.splits[split].inputs, variant.splits[split].inputs)
        assert torch.equal(data.splits[split].labels, variant.splits[split].labels)


def test_fixed_noise_is_keyed_and_on_training_labels_only():
    first, again, other = (ready(seed=seed, label_std=0.5) for seed in (1, 1, 2))
    assert torch.equal(first.splits["train"].labels, again.splits["train"].labels)
    assert not (first.splits["train"].labels == other.splits["train"].labels).any()
    assert torch.equal(first.splits["test"].labels, ready().splits["test"].labels)
    variant = first.variant(2)
    assert torch.equal(variant.splits["train"].labels, other.splits["train"].labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"train_size": 0}, "train_size = 0"), ({"test_size": 0}, "test_size = 0"), ({"label_std": -1}, "label_std = -1")],
    ids=["no-points", "no-grid", "negative-std"],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ready(**options)
