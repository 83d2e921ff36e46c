"""The two cubes: their distribution against the definition, keys and variants."""

import numpy as np
import pytest
import torch
from scipy import stats

from lnsgd.data import Hypercube
from lnsgd.data.hypercube import cube_boundary
from lnsgd.rng import generator
from tests.tolerances import STANDARD_ERRORS

RARE = stats.norm.sf(STANDARD_ERRORS)
SPLITS = ("train", "val", "test")
CLASSES = pytest.mark.parametrize("label", [0, 1], ids=["inner", "outer"])

# The radius of each class, as the data has it.
DIMENSION, EPSILON = 4, 0.3
RADII = np.array([1 - EPSILON, 1.0], np.float32)


def ready(**options) -> Hypercube:
    data = Hypercube(**{"dimension": DIMENSION, "epsilon": EPSILON, "train_size": 20_000, "test_size": 3000, **options})
    data.setup()
    return data


def arrays(data: Hypercube, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    return data.splits[split].inputs.numpy(), data.splits[split].labels.numpy()


def points(label: int) -> np.ndarray:
    """The points of one class, divided by its radius: on the boundary of [−1, 1]^d."""
    inputs, labels = arrays(ready())
    return inputs[labels == label] / RADII[label]


def face(boundary: np.ndarray) -> np.ndarray:
    """On which of the 2d faces each point lies."""
    coordinate = np.abs(boundary).argmax(1)
    return 2 * coordinate + (boundary[np.arange(len(boundary)), coordinate] > 0)


def within_face(boundary: np.ndarray) -> np.ndarray:
    """The d − 1 coordinates that are not at the radius, (n, d − 1)."""
    at_radius = np.arange(boundary.shape[1]) == np.abs(boundary).argmax(1)[:, None]
    return boundary[~at_radius].reshape(len(boundary), -1).astype(float)


def plausible(pvalue: float) -> bool:
    return bool(RARE < pvalue < 1 - RARE)


def test_the_defaults_are_the_setting_of_the_paper():
    data = Hypercube()
    assert (data.dimension, data.epsilon, data.train_size, data.num_classes) == (60, 0.3, 240, 2)
    assert (data.batch_size, data.order) == (1, "replacement")


@pytest.mark.parametrize("split", SPLITS)
def test_each_class_lies_exactly_on_its_cube(split):
    inputs, labels = arrays(ready(), split)
    assert labels.dtype == np.int64
    assert set(labels) == {0, 1}
    np.testing.assert_array_equal(np.abs(inputs).max(1), RADII[labels])
    assert (np.abs(inputs) == RADII[labels][:, None]).sum() == len(labels)  # one coordinate of each point


@pytest.mark.parametrize("split", SPLITS)
def test_classes_are_balanced(split):
    labels = arrays(ready(), split)[1]
    assert abs(2 * labels.mean() - 1) * np.sqrt(len(labels)) < STANDARD_ERRORS


@CLASSES
def test_every_face_is_equally_likely(label):
    counts = np.bincount(face(points(label)), minlength=2 * DIMENSION)
    assert plausible(stats.chisquare(counts).pvalue)


@CLASSES
def test_points_are_uniform_within_a_face(label):
    inside = within_face(points(label))
    assert plausible(stats.kstest(inside.ravel(), stats.uniform(-1, 2).cdf).pvalue)
    for coordinate in inside.T:
        assert plausible(stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue)


@CLASSES
def test_coordinates_within_a_face_are_independent(label):
    inside = within_face(points(label))
    for numbers in (inside, np.abs(inside)):
        correlations = np.corrcoef(numbers.T)[np.triu_indices(DIMENSION - 1, 1)]
        assert np.abs(correlations).max() * np.sqrt(len(numbers)) < STANDARD_ERRORS


def test_faces_and_labels_are_independent():
    inputs, labels = arrays(ready())
    faces = face(inputs)
    for one, other in ((faces, labels), (faces[1:], faces[:-1]), (labels[1:], labels[:-1])):
        table = np.zeros((one.max() + 1, other.max() + 1))
        np.add.at(table, (one, other), 1)
        assert plausible(stats.chi2_contingency(table).pvalue)


def test_only_the_radius_depends_on_the_class():
    """Divided by their radius, both classes have the same mean and the same second moments."""
    both = [points(label).astype(float) for label in (0, 1)]
    for moment in (1, 2):
        means, errors = zip(*((np.mean(x**moment, 0), np.std(x**moment, 0) / np.sqrt(len(x))) for x in both))
        assert (np.abs(means[1] - means[0]) < STANDARD_ERRORS * np.hypot(*errors)).all()


@pytest.mark.parametrize("epsilon", [0.05, 0.9])
def test_epsilon_is_the_distance_between_the_cubes(epsilon):
    inputs, labels = arrays(ready(epsilon=epsilon), "val")
    np.testing.assert_allclose(np.abs(inputs[labels == 0]).max(1), 1 - epsilon, rtol=1e-6)
    assert (np.abs(inputs[labels == 1]).max(1) == 1).all()


def test_one_dimension_has_four_points():
    inputs, labels = arrays(ready(dimension=1))
    assert set(zip(inputs[:, 0], labels)) == {(s * RADII[c], c) for s in (-1, 1) for c in (0, 1)}


def test_sizes_and_shapes():
    data = ready(dimension=7, train_size=None, test_size=5)
    assert [tuple(data.splits[split].inputs.shape) for split in SPLITS] == [(28, 7), (5, 7), (5, 7)]


def test_splits_are_drawn_independently():
    drawn = [arrays(ready(train_size=3000), split) for split in SPLITS]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not set(map(tuple, drawn[one][0])) & set(map(tuple, drawn[other][0]))
        for a, b in zip(drawn[one], drawn[other]):
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * np.sqrt(a.size) < STANDARD_ERRORS


def test_data_depends_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = ready(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = ready(seed=3), ready(seed=4)
    for split in SPLITS:
        for same, here, elsewhere in zip(arrays(again, split), arrays(first, split), arrays(other, split)):
            assert np.array_equal(here, same)
            assert not np.array_equal(here, elsewhere)


def test_validation_points_do_not_depend_on_the_training_size():
    one, other = (arrays(ready(train_size=size), "test")[0] for size in (10, 999))
    assert np.array_equal(one, other)


def test_a_variant_equals_the_data_of_its_seed():
    data = ready(seed=0)
    before = arrays(data)[0].copy()
    variant, alone = data.variant(7, subset=100), ready(seed=7, subset=100)
    for split in SPLITS:
        for a, b in zip(arrays(variant, split), arrays(alone, split)):
            assert np.array_equal(a, b)
    assert len(variant.splits["train"]) == 100
    assert np.array_equal(arrays(data)[0], before)


def test_a_boundary_depends_on_its_generator_alone():
    one, other = (cube_boundary(5, 3, generator(0, "data", 9)) for _ in range(2))
    assert torch.equal(one, other)
    assert (one.abs().amax(1) == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 0}, "Hypercube: dimension = 0; it must be at least 1"),
        ({"epsilon": 0.0}, "Hypercube: epsilon = 0.0; it must be between 0 and 1"),
        ({"epsilon": 1.0}, "Hypercube: epsilon = 1.0"),
        ({"epsilon": float("nan")}, "Hypercube: epsilon = nan"),
        ({"train_size": 0}, "train_size = 0"),
        ({"test_size": 0}, "test_size = 0"),
        ({"subset": 20_001}, "subset = 20001"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ready(**options)
