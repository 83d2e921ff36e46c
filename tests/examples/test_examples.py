"""Every program in ``examples/`` runs, in at most 60 lines, and prints numbers that are right."""

import copy
import runpy
import sys
from pathlib import Path

import pytest
import torch
from pytest import approx
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.examples.independent import (
    CROSS_ENTROPY,
    active_fraction,
    distance,
    inputs_of,
    mnist_sample,
    numbers_after,
    performance,
    two_layers,
)
from tests.reference.measures import dense_traces

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.rglob("*.py"))


def rounded(*values):
    """Expect these values with three decimals, as the programs print them; sums may differ in their last digits."""
    return approx(values, abs=6e-4)


def check_plain_loop(program, printed):
    inputs, labels, net = program["inputs"], program["labels"], program["net"]
    initial, unwatched = train_without_watch()
    assert all(torch.equal(mine, watched) for mine, watched in zip(unwatched.parameters(), net.parameters()))

    hidden, outputs = two_layers([p.detach() for p in net.parameters()], inputs)
    train, val = performance(outputs[:400], labels[:400]), performance(outputs[400:], labels[400:])
    fractions = active_fraction([hidden[:400]]), active_fraction([hidden[400:]])
    assert numbers_after(printed, "400") == rounded(*train, *val, *fractions, distance(net, initial))
    trace, of_tensors = dense_traces(net, CROSS_ENTROPY, inputs[:400], labels[:400])
    assert numbers_after(printed, "hessian_trace", "train") == rounded(trace, 0)
    assert numbers_after(printed, "hessian_trace", "train", "2.weight") == rounded(of_tensors["2.weight"], 0)


def train_without_watch():
    """Train as ``plain_loop.py`` does, without measuring; return the initial and the final network."""
    torch.manual_seed(0)
    inputs = torch.randn(600, 10)
    labels = inputs[:, :3].argmax(1)
    train = DataLoader(TensorDataset(inputs[:400], labels[:400]), batch_size=20, shuffle=True)
    net = nn.Sequential(nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 3))
    initial = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    for _ in range(20):
        for x, y in train:
            noisy = torch.where(torch.rand(len(y)) < 0.2, torch.randint(3, (len(y),)), y)
            optimizer.zero_grad()
            CROSS_ENTROPY(net(x), noisy).mean().backward()
            optimizer.step()
    return initial, net


def check_own_noise_and_measure(program, printed):
    images, _ = mnist_sample("train")
    _, outputs = two_layers([p.detach() for p in program["module"].net.parameters()], images)
    confidence = (outputs - outputs.logsumexp(1, keepdim=True)).amax(1).exp().mean().item()
    clean, noisy = numbers_after(printed, "200")
    assert noisy == approx(confidence, abs=6e-4)
    assert clean > noisy + 0.1  # a network that learns labels of which half are wrong is less sure

    noise, labels = program["NextClass"](0.3), torch.arange(10).repeat(1_000)
    given = noise.apply(labels, noise.draw(labels.shape, torch.Generator().manual_seed(0), 10), 10)
    replaced = given != labels
    assert replaced.float().mean().item() == approx(0.3, abs=4 * (0.3 * 0.7 / 10_000) ** 0.5)
    assert given[replaced].tolist() == [(label + 1) % 10 for label in labels[replaced].tolist()]


def check_published_checkpoint(program, printed):
    net, path = program["net"], program["path"]
    outputs, (stem,) = inputs_of(net, [net.layer1], program["images"])
    loss, error = performance(outputs, program["labels"])
    assert numbers_after(printed, "loss", "val") == approx([loss], rel=1e-4)
    assert numbers_after(printed, "error", "val") == rounded(error)
    # The first ReLU gives the input of the first layer of blocks, which is positive where the ReLU is active.
    assert numbers_after(printed, "active_fraction", "val", "relu") == rounded(active_fraction([stem]))
    kernel = torch.load(path, weights_only=True)["state_dict"]["module.conv1.weight"]
    assert numbers_after(printed, "norm", "net.conv1.weight") == rounded(kernel.square().sum().sqrt().item())


def check_torchvision_resnet(program, printed):
    torch.manual_seed(0)  # the program draws its data first, and then the network
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    initial = program["resnet18"](num_classes=10)
    net = program["trainer"].lightning_module.net
    outputs, (stem,) = inputs_of(net, [net.maxpool], images)
    assert numbers_after(printed, "error/train") == rounded(performance(outputs, labels)[1])
    assert numbers_after(printed, "active_fraction/train/net.relu") == rounded(active_fraction([stem]))
    assert numbers_after(printed, "distance_from_init") == rounded(distance(net, initial))


def check_train(program, printed):
    inputs = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))
    labels = inputs[:, :3].argmax(1)
    (checkpoint,) = Path().rglob("*.ckpt")
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    net = nn.Sequential(nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 3))
    net.load_state_dict({name.removeprefix("net."): value for name, value in weights.items()})
    hidden, outputs = two_layers(list(weights.values()), inputs[200:])
    assert numbers_after(printed, "error/val") == rounded(performance(outputs, labels[200:])[1])
    assert numbers_after(printed, "active_fraction/val/net.1") == rounded(active_fraction([hidden]))
    trace, _ = dense_traces(net, CROSS_ENTROPY, inputs[:200], labels[:200])
    assert numbers_after(printed, "hessian_trace/train") == rounded(trace)
    assert list(Path().rglob("events.out.tfevents.*"))


def check_timm_convnext(program, printed):
    net, initial = program["net"], program["initial"]
    for column, measured in enumerate((initial, net)):
        activations = [block.mlp.act for stage in measured.stages for block in stage.blocks]
        outputs, hidden = inputs_of(measured, activations, program["images"])
        loss, error = performance(outputs, program["labels"])
        assert numbers_after(printed, "loss", "train")[column] == approx(loss, abs=6e-4)
        assert numbers_after(printed, "error", "train")[column] == approx(error, abs=6e-4)
        fraction = active_fraction(hidden)
        assert numbers_after(printed, "active_fraction", "train", "total")[column] == approx(fraction, abs=6e-4)
    assert numbers_after(printed, "distance_from_init") == rounded(0, distance(net, initial))


def check_tiny_gpt(program, printed):
    texts, net = program["texts"], program["net"]
    activations = [net.transformer.h[0].mlp.act]
    outputs, hidden = inputs_of(net, activations, input_ids=texts)
    # Token t is predicted from the tokens before it; only the second half, tokens 8 to 15, counts.
    loss, error = performance(outputs.logits[:, 7:15], texts[:, 8:16])
    fraction = active_fraction(hidden)
    units = hidden[0][0].numel()
    found = numbers_after(printed, "120")
    assert found[:2] == approx([units * fraction, fraction], abs=6e-4, rel=1e-6)
    assert found[3:] == rounded(error, loss)
    assert error < 0.05  # it has learned to copy


def check_transformers_classifier(program, printed):
    model, data = program["trainer"].model, program["data"]
    tokens, labels = torch.stack([one["input_ids"] for one in data]), torch.tensor([one["labels"] for one in data])
    outputs, _ = inputs_of(model, [], input_ids=tokens, attention_mask=torch.ones_like(tokens))
    loss, _ = performance(outputs.logits[:192], labels[:192])
    _, error = performance(outputs.logits[192:], labels[192:])
    step, *found = numbers_after(printed, "step")
    assert step == 48
    assert found[:2] == approx([loss, error], rel=5e-3)  # three digits are printed


# What is checked of each program, by the name of its file.
CHECKS = {
    "own_noise_and_measure": check_own_noise_and_measure,
    "plain_loop": check_plain_loop,
    "published_checkpoint": check_published_checkpoint,
    "timm_convnext": check_timm_convnext,
    "tiny_gpt": check_tiny_gpt,
    "torchvision_resnet": check_torchvision_resnet,
    "train": check_train,
    "transformers_classifier": check_transformers_classifier,
}
# Quick enough for every run of the tests; the others import libraries beyond Lightning.
QUICK = ("own_noise_and_measure", "plain_loop", "published_checkpoint")


def test_every_program_is_checked():
    assert {path.stem for path in PROGRAMS} == set(CHECKS)


def _slow_unless_quick(path):
    return pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("path", map(_slow_unless_quick, PROGRAMS))
def test_it_prints_right_numbers(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setenv("PL_GLOBAL_SEED", "")  # which seed_everything sets, and which is put back afterwards
    program = runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    CHECKS[path.stem](program, printed)
    check_page(path, printed)


def check_page(path, printed):
    """Check that ``examples/README.md`` shows the last lines that the program prints.

    Their numbers are checked above. Here they may differ by what training makes of other roundings.
    """
    page = (EXAMPLES / "README.md").read_text()
    section = page.partition(f"### `{path.relative_to(EXAMPLES)}`")[2]
    shown = section.split("```text\n")[1].split("```")[0].splitlines()
    for line, found in zip(shown, printed.splitlines()[-len(shown) :], strict=True):
        assert len(line.split()) == len(found.split())
        for word, other in zip(line.split(), found.split()):
            assert word == other or float(word) == approx(float(other), rel=0.1, abs=0.02)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_is_short_and_says_how_to_run_it(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 60
    assert f"python {path.relative_to(EXAMPLES.parent)}" in text.split('"""')[1]
