"""Labels beside outputs, against loops over positions: which axis is the classes, what has no label, mean losses."""

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lnsgd.measures import largest_output, margins, performance
from lnsgd.measures.labels import align_labels, example_classes, example_losses

B, C, L = 6, 4, 5
CE = nn.CrossEntropyLoss(reduction="none")
BCE = lambda o, y: F.binary_cross_entropy_with_logits(o, y.to(o).reshape(o.shape), reduction="none")  # noqa: E731


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(*shape, of=C, seed=1):
    return torch.randint(of, shape, generator=torch.Generator().manual_seed(seed))


def scores_at(outputs, where, axis):
    """Scores of one position: all classes, or one number if there is no axis of classes."""
    if axis is None:
        return outputs[where][None]
    index = list(where)
    index.insert(axis, slice(None))
    return outputs[tuple(index)]


# name: outputs, labels (as the loops index them), axis of the classes, loss
SHAPES = {
    "classes": (numbers(B, C), classes(B), 1, CE),
    "one-output": (numbers(B, 1), classes(B, of=2), 1, None),
    "squeezed": (numbers(B), classes(B, of=2), None, BCE),
    "attributes": (numbers(B, 8), classes(B, 8, of=2), None, BCE),
    "attributes-as-many-as-examples": (numbers(B, B), classes(B, B, of=2), None, BCE),
    "tokens": (numbers(B, L, C), classes(B, L), 2, CE),
    "signals": (numbers(B, C, L), classes(B, L), 1, CE),
    "pixels": (numbers(B, C, 3, 2), classes(B, 3, 2), 1, CE),
    "pixels-last": (numbers(B, 3, 2, C), classes(B, 3, 2), 3, CE),
    "masks": (numbers(B, 1, 3, 2), classes(B, 3, 2, of=2), 1, BCE),
}


def right_numbers(outputs, labels, axis, ignored):
    """Error and margins by a loop over positions."""
    wrong, found = [], []
    for where in torch.cartesian_prod(*map(torch.arange, labels.shape)).reshape(-1, labels.ndim).tolist():
        label = labels[tuple(where)].item()
        if label == ignored:
            continue
        scores = scores_at(outputs, tuple(where), axis).tolist()
        if len(scores) == 1:
            scores = [0.0, scores[0]]
        wrong.append(max(range(len(scores)), key=scores.__getitem__) != label)
        found.append(scores[label] - max(score for c, score in enumerate(scores) if c != label))
    return sum(wrong) / len(wrong), sorted(found)


@pytest.mark.parametrize("column", [False, True], ids=["", "label-axis"])
@pytest.mark.parametrize("unlabelled", [False, True], ids=["", "unlabelled"])
@pytest.mark.parametrize(("outputs", "labels", "axis", "loss"), SHAPES.values(), ids=SHAPES)
def test_loss_error_and_margins_of_all_shapes(outputs, labels, axis, loss, unlabelled, column):
    if unlabelled:
        labels = labels.clone()
        labels.view(-1)[::3] = -100
        labels[2] = -100
    error, found = right_numbers(outputs, labels, axis, -100)
    given = labels.unsqueeze(1) if column else labels
    data = [(outputs[:4], given[:4]), (outputs[4:], given[4:])]
    one = lambda o, y: o.reshape(len(o), -1).square().sum(1)  # noqa: E731
    measured = performance(nn.Identity(), one, data)
    kept = (labels != -100).reshape(B, -1).any(1)
    assert measured.error == pytest.approx(error, abs=1e-12)
    assert measured.loss == pytest.approx(outputs[kept].reshape(int(kept.sum()), -1).square().sum(1).mean().item())
    torch.testing.assert_close(margins(nn.Identity(), data).values, torch.tensor(found, dtype=torch.float64))
    if loss is not None and not column:
        first = outputs.movedim(axis, 1) if loss is CE else outputs.reshape(labels.shape)
        right = (
            F.cross_entropy(first, labels) if loss is CE else BCE(first[labels != -100], labels[labels != -100]).mean()
        )
        counted = loss if loss is CE else (lambda o, y: BCE(o, y.clamp(0)).reshape(y.shape))
        assert performance(nn.Identity(), counted, data).loss == pytest.approx(right.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        (numbers(8, 4), classes(8, 8)),
        (numbers(8, 4), classes(8, 3)),
        (numbers(8, 5, 4), classes(8)),
        (numbers(8), classes(8, 2)),
    ],
)
def test_shapes_that_do_not_agree_are_named(outputs, labels):
    shapes = [re.escape(str(tuple(tensor.shape))) for tensor in (labels, outputs)]
    both = "labels of shape {} .* outputs of shape {}".format(*shapes)
    for measure in (
        lambda: performance(nn.Identity(), CE, [(outputs, labels)]),
        lambda: margins(nn.Identity(), [(outputs, labels)]),
    ):
        with pytest.raises(ValueError, match=f"{both}.*give batch= or outputs=") as error:
            measure()
        assert "\n" not in str(error.value)


def test_shapes_that_agree_in_two_ways_are_refused():
    with pytest.raises(ValueError, match=r"outputs of shape \(6, 4, 4\) may have their classes along axis 1 or 2"):
        align_labels(numbers(B, C, C), classes(B, C))


@pytest.mark.parametrize(
    ("outputs", "labels", "value", "last"),
    [
        (numbers(3, C), [0, 1, C], C, C - 1),
        (numbers(3, C), [0, -1, 1], -1, C - 1),
        (numbers(3, 1), [1, -1, 1], -1, 1),
        (numbers(3, 2), [[0, 1], [1, 2], [0, 0]], 2, 1),
        (numbers(2, 2, C), [[0, 255], [1, 2]], 255, C - 1),
    ],
    ids=["large", "negative", "signs", "attribute", "void"],
)
def test_labels_that_are_no_classes_are_named(outputs, labels, value, last):
    data = [(outputs, torch.tensor(labels))]
    for measure in (lambda: performance(nn.Identity(), CE, data), lambda: margins(nn.Identity(), data)):
        with pytest.raises(ValueError, match=f"label {value} is outside 0 to {last}, .*ignore_index"):
            measure()


LOSSES = {
    "module": nn.CrossEntropyLoss(reduction="none", ignore_index=1),
    "part": nn.Sequential(nn.CrossEntropyLoss(reduction="none", ignore_index=1)),
    "partial": partial(F.cross_entropy, reduction="none", ignore_index=1),
    # These do not say it.
    "function": lambda outputs, labels: F.cross_entropy(outputs, labels, ignore_index=1, reduction="none"),
    "method": nn.CrossEntropyLoss(reduction="none", ignore_index=1).forward,
}
LOSSES["part"].forward = LOSSES["part"][0].forward


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_ignore_index_of_the_loss_counts(loss):
    outputs, labels = numbers(B, C, L), classes(B, L)
    found = performance(nn.Identity(), loss, [(outputs, labels)])
    assert found.loss == pytest.approx(F.cross_entropy(outputs, labels, ignore_index=1).item(), abs=1e-12)
    assert found.error == pytest.approx(right_numbers(outputs, labels, 1, 1)[0], abs=1e-12)


def test_a_hidden_ignore_index_of_a_loss_of_sentences_counts_in_the_error():
    def loss(outputs, labels):
        of_tokens = F.cross_entropy(outputs, labels, ignore_index=0, reduction="none")
        return of_tokens.sum(1) / (labels != 0).sum(1)

    outputs, labels = numbers(B, C, L), classes(B, L, of=C - 1) + 1
    labels[:, 3:] = 0
    found = performance(nn.Identity(), loss, [(outputs, labels)])
    assert found.loss == pytest.approx(F.cross_entropy(outputs, labels, ignore_index=0).item(), abs=1e-12)
    assert found.error == pytest.approx(right_numbers(outputs, labels, 1, 0)[0], abs=1e-12)


def test_a_class_without_a_loss_on_this_data_is_counted():
    outputs, labels = 1e4 * F.one_hot(classes(B), C).double(), classes(B)
    outputs[labels == 1] *= -1  # wrong, so that only the other classes have the loss 0
    assert performance(nn.Identity(), CE, [(outputs, labels)]).error == (labels == 1).double().mean()


def test_a_loss_may_write_into_outputs_and_labels():
    def loss(outputs, labels):
        return F.cross_entropy(outputs.mul_(-2.0), labels.sub_(1).remainder_(C), reduction="none")

    outputs, labels = numbers(B, C), classes(B)
    given = outputs.clone(), labels.clone()
    found = performance(nn.Identity(), loss, [(outputs, labels)])
    assert found.loss == pytest.approx(F.cross_entropy(-2 * outputs, (labels - 1) % C).item())
    assert found.error == (outputs.argmax(1) != labels).double().mean()
    assert outputs.equal(given[0]) and labels.equal(given[1])


def test_a_loss_does_not_see_unlabelled_examples():
    seen = []

    def loss(outputs, labels):
        seen.extend(labels.tolist())
        return F.one_hot(labels, C).to(outputs).mul(outputs).sum(1)

    outputs, labels = numbers(B, C), torch.tensor([0, -100, 2, 3, -100, 1])
    found = example_losses(loss, outputs.requires_grad_(), labels)
    assert seen == [0, 2, 3, 1]
    assert found.weights.tolist() == [1, 0, 1, 1, 0, 1]
    found.sums.sum().backward()
    assert outputs.grad.abs().sum(1).tolist() == found.weights.tolist()


def test_data_without_any_label_is_refused():
    data = [(numbers(B, C), torch.full((B,), -100))]
    for measure in (lambda: performance(nn.Identity(), CE, data), lambda: margins(nn.Identity(), data)):
        with pytest.raises(ValueError, match=r"no examples to .* or no example has a label"):
            measure()


def test_real_targets_of_several_numbers_are_averaged_as_torch_does():
    outputs, targets = numbers(B, 3), numbers(B, 3, seed=2)
    found = performance(nn.Identity(), nn.MSELoss(reduction="none"), [(outputs, targets)])
    assert found.loss == pytest.approx(F.mse_loss(outputs, targets).item(), abs=1e-12)
    assert found.error != found.error


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda o, y: ((o - y) ** 2).mean(1), "alone and .* beside others, .* does not broadcast"),
        (lambda o, y: ((o[:, 0] - y) - (o[:, 0] - y).mean()) ** 2, "alone and .* beside others"),
        (
            nn.MSELoss(reduction="none"),
            r"the loss gives shape \(6, 6\) for 6 examples with labels \(6,\)",
        ),
        (nn.MSELoss(), r"the loss gives shape \(\).*reduction='none'"),
    ],
    ids=["broadcast", "centered", "broadcast-unreduced", "mean"],
)
def test_losses_that_depend_on_other_examples_are_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        performance(nn.Identity(), loss, [(numbers(B, 1), numbers(B, seed=3))])


def test_largest_output_of_one_number_an_example():
    assert largest_output(nn.Identity(), [(torch.tensor([1.0, -3.0]), torch.tensor([0, 1]))]) == 3


def test_classes_of_examples():
    assert example_classes(torch.tensor([2, -100, 0]))[1].tolist() == [True, False, True]
    with pytest.raises(ValueError, match="label -1 is outside"):
        example_classes(torch.tensor([2, -1]))
    with pytest.raises(ValueError, match="label 2 is outside 0 to 1"):
        example_classes(torch.tensor([2, 1]), num_classes=2)
    with pytest.raises(ValueError, match=r"labels of shape \(2, 2\), torch.int64, are not classes"):
        example_classes(torch.zeros(2, 2, dtype=torch.long))
