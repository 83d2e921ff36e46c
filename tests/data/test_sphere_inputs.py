"""Points on the sphere: their distribution, rejection of nearly dependent points, keys."""

import numpy as np
import pytest
import torch
from scipy import stats

from lnsgd.data import SphereInputs
from tests.tolerances import STANDARD_ERRORS

RARE = stats.norm.sf(STANDARD_ERRORS)
SIZES = {"square": (3, 3), "wide": (5, 2), "tall": (3, 6)}


def ready(**options) -> SphereInputs:
    data = SphereInputs(**options)
    data.setup()
    return data


def smallest_eigenvalue(inputs: torch.Tensor) -> float:
    """Square of the smallest singular value, by NumPy."""
    return float(np.linalg.svd(inputs.double().numpy(), compute_uv=False)[-1] ** 2)


@pytest.mark.parametrize(("dimension", "examples"), SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("seed", range(4))
def test_inputs_are_positive_unit_vectors_far_from_dependent(dimension, examples, seed):
    train = ready(dimension=dimension, examples=examples, seed=seed).splits["train"]
    assert (train.inputs.shape, train.labels.shape) == ((examples, dimension), (examples, 1))
    assert train.inputs.dtype == train.labels.dtype == torch.get_default_dtype()
    assert train.inputs.norm(dim=1).tolist() == pytest.approx([1.0] * examples, rel=1e-6)
    assert (train.inputs >= 0).all()
    assert smallest_eigenvalue(train.inputs) >= 0.1 - 1e-6


def test_min_eigenvalue_rejects_draws():
    drawn = [smallest_eigenvalue(ready(min_eigenvalue=0.0, seed=seed).splits["train"].inputs) for seed in range(200)]
    assert 0.02 < np.mean(np.array(drawn) >= 0.1) < 0.4


def test_distributions_of_inputs_and_targets():
    train = ready(dimension=2, examples=4000, min_eigenvalue=0.0).splits["train"]
    assert RARE < stats.kstest(train.labels[:, 0].numpy(), "uniform").pvalue < 1 - RARE
    # For u, v ~ U[0, 1] the ratio u/v has P(u/v <= 1) = 1/2 and density 1/2 up to 1.
    ratio = (train.inputs[:, 0] / train.inputs[:, 1]).numpy()
    assert RARE < stats.kstest(ratio[ratio <= 1], "uniform").pvalue < 1 - RARE
    assert stats.binomtest(int((ratio <= 1).sum()), 4000).pvalue > RARE


def test_all_splits_are_the_same():
    splits = ready().splits
    assert all(splits[split] is splits["val"] for split in ("val", "test"))
    assert torch.equal(splits["train"].inputs, splits["val"].inputs)


def test_every_seed_is_another_instance():
    data = ready(seed=0)
    variants = [data.variant(seed).splits["train"] for seed in (0, 1, 1)]
    assert torch.equal(variants[0].inputs, data.splits["train"].inputs)
    assert torch.equal(variants[1].inputs, variants[2].inputs)
    assert torch.equal(variants[1].labels, variants[2].labels)
    assert not torch.isin(variants[1].inputs, variants[0].inputs).any()
    assert torch.equal(ready(seed=1).splits["train"].inputs, variants[1].inputs)


def test_a_batch_is_the_whole_training_set():
    batch = next(iter(ready(examples=5).train_dataloader()))
    assert len(batch.inputs) == 5


def test_real_targets():
    assert SphereInputs().num_classes is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 0}, "dimension = 0"),
        ({"examples": 0}, "examples = 0"),
        ({"subset": 4}, "subset = 4"),
        ({"min_eigenvalue": 3.1}, "min_eigenvalue = 3.1"),
    ],
    ids=["d", "n", "subset", "eigenvalue"],
)
def test_errors(options, message, monkeypatch):
    monkeypatch.setattr("lnsgd.data.sphere_inputs._MOST_DRAWS", 50)
    with pytest.raises(ValueError, match=message):
        ready(**options)
