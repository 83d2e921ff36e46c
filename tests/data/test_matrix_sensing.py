"""Matrix sensing: the matrix, the distribution of measurements, exact labels, keys and variants."""

import numpy as np
import pytest
import torch
from scipy import stats

from lnsgd.data import MatrixSensing
from lnsgd.replicas import ReplicaGrid, ReplicatedData
from tests.tolerances import STANDARD_ERRORS

RARE = stats.norm.sf(STANDARD_ERRORS)
SPLITS = ("train", "val", "test")


def ready(**options) -> MatrixSensing:
    data = MatrixSensing(**{"size": 6, "rank": 2, "train_size": 500, "test_size": 300, **options})
    data.setup()
    return data


def test_the_defaults_are_the_setting_of_the_paper():
    data = MatrixSensing()
    assert (data.size, data.rank, data.train_size, data.num_classes) == (100, 5, 2500, None)
    assert (data.batch_size, data.order) == (1, "replacement")


@pytest.mark.parametrize("rank", [1, 2, 6])
def test_the_matrix_has_its_rank_and_columns_of_norm_one(rank):
    target = ready(rank=rank).target.double()
    assert torch.equal(target, target.T)
    values = torch.linalg.eigvalsh(target)
    assert (values.abs() > 1e-6).sum() == rank
    assert values.min() > -1e-6
    assert values.sum().item() == pytest.approx(rank, rel=1e-6)  # the trace is the sum of the columns' squared norms


def test_columns_are_uniform_on_the_sphere():
    """Of rank one a diagonal entry of X* is the square of a coordinate: Beta(½, (d − 1)/2)."""
    entries = [ready(rank=1, seed=seed, train_size=1, test_size=1).target[0, 0].item() for seed in range(400)]
    assert RARE < stats.kstest(entries, stats.beta(0.5, 2.5).cdf).pvalue < 1 - RARE


@pytest.mark.parametrize("split", SPLITS)
def test_entries_are_independent_standard_normal(split):
    sample = ready().splits[split].inputs.double().flatten(1).numpy()
    assert RARE < stats.kstest(sample.ravel(), "norm").pvalue < 1 - RARE
    correlations = np.corrcoef(sample.T)[np.triu_indices(36, 1)]
    assert np.abs(correlations).max() * np.sqrt(len(sample)) < STANDARD_ERRORS


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_inner_products_with_the_matrix(split):
    data = ready()
    matrices, labels = data.splits[split].inputs.double(), data.splits[split].labels
    expected = torch.einsum("nij,ij->n", matrices, data.target.double()).unsqueeze(1)
    torch.testing.assert_close(labels.double(), expected, rtol=1e-5, atol=1e-5)


def test_only_training_labels_are_perturbed_and_only_once():
    clean, perturbed = ready(), ready(label_std=0.3)
    difference = (perturbed.splits["train"].labels - clean.splits["train"].labels).double().ravel().numpy()
    assert RARE < stats.kstest(difference / 0.3, "norm").pvalue < 1 - RARE
    for split in SPLITS[1:]:
        assert torch.equal(perturbed.splits[split].labels, clean.splits[split].labels)
    assert torch.equal(ready(label_std=0.3).splits["train"].labels, perturbed.splits["train"].labels)


def test_data_depends_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = ready(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    again, other = ready(seed=3), ready(seed=4)
    assert torch.equal(again.target, first.target)
    assert not torch.equal(other.target, first.target)
    for split in SPLITS:
        assert torch.equal(again.splits[split].inputs, first.splits[split].inputs)
        assert not torch.equal(other.splits[split].inputs, first.splits[split].inputs)


def test_replicas_of_one_seed_share_their_measurements():
    replicas = ReplicaGrid(seeds=2, noise=[0.0, 0.3]).replicas(0)
    data = ReplicatedData(MatrixSensing(4, 1), replicas)
    data.setup()
    pool, parts = data.training_sets()
    assert pool.shape == (40, 4, 4)  # 20 measurements for each of two seeds
    assert [int(part.rows[0]) for part in parts] == [0, 20, 0, 20]
    assert torch.equal(data.of_replica(3).target, ready(size=4, rank=1, seed=1).target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "MatrixSensing: size = 0; it must be at least 1"),
        ({"rank": 0}, "MatrixSensing: rank = 0; give 1 to 6, the size"),
        ({"rank": 7}, "MatrixSensing: rank = 7; give 1 to 6, the size"),
        ({"train_size": 0}, "train_size = 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ready(**options)
