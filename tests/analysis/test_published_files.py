"""Files as others publish them: what torch's strict loading takes, parts, shards, and objects of other packages."""

import json
import os
import sys
import types
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from lnsgd.analysis import analyze
from lnsgd.analysis.weights import fit_names, read_weights
from lnsgd.data import CIFAR10, MNIST
from lnsgd.measuring import PerformanceMeasurer
from lnsgd.untrusted.checkpoint import AsksForCodeError, load_shards


class Small(nn.Module):
    """A network with batch normalization, at the top and within."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.layer2 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 2)


def network() -> nn.Module:
    torch.manual_seed(0)
    return Small()


STATE = network().state_dict()


def fitted(path: Path) -> tuple[dict[str, Tensor], str]:
    found = read_weights(path)
    named = fit_names(found.trained, network().state_dict(), path, "ResNet")
    return named.tensors, f"{found.note}; {named.note}".strip("; ")


def assert_loads(path: Path, note: str) -> None:
    """Check a file against torch, which loads the weights of a network strictly."""
    tensors, said = fitted(path)
    made = Small()
    made.load_state_dict(tensors, strict=True)
    assert made.state_dict().keys() == STATE.keys()
    assert all(torch.equal(value, STATE[name]) for name, value in made.state_dict().items())
    assert note in said


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def within_parallel(*parts: str, whole: bool = False) -> dict[str, Tensor]:
    """The state of a network of which parts, and perhaps the whole, are within ``DataParallel``."""
    made = network()
    for part in parts:
        setattr(made, part, DataParallel(getattr(made, part)))
    return dict((DataParallel(made) if whole else made).state_dict())


STATES = {
    "without counters": (without_counters(STATE), "3 missing num_batches_tracked set to 0"),
    "whole in parallel, without counters": (without_counters(within_parallel(whole=True)), "3 missing num_batches"),
    "part in parallel": (within_parallel("layer1"), "'module' of DataParallel"),
    "parts and whole in parallel": (within_parallel("layer1", "fc", whole=True), "'module' of DataParallel"),
    "parts, without counters": (without_counters(within_parallel("layer2")), "3 missing num_batches_tracked"),
    "counters of shape (1,)": ({k: v.reshape(1) if v.ndim == 0 else v for k, v in STATE.items()}, ""),
    "parts within a Lightning module": ({f"net.{k}": v for k, v in within_parallel("layer1").items()}, "'net.'"),
}


@pytest.mark.parametrize(("state", "note"), STATES.values(), ids=STATES)
def test_what_torch_takes_is_loaded(tmp_path, state, note):
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "x.th")
    assert_loads(tmp_path / "x.th", note)


def test_other_missing_buffers_are_refused(tmp_path):
    state = {name: value for name, value in STATE.items() if not name.startswith("bn1.running")}
    torch.save(without_counters(state), tmp_path / "x.th")
    with pytest.raises(ValueError, match=r"3 missing \(bn1.running_mean, bn1.running_var, bn1.num_batches_tracked\)"):
        fitted(tmp_path / "x.th")


def test_module_that_is_part_of_the_names_is_kept(tmp_path):
    wanted = {"module.a": torch.zeros(1), "a": torch.ones(2)}
    torch.save(wanted, tmp_path / "x.th")
    found = fit_names(read_weights(tmp_path / "x.th").trained, wanted, tmp_path, "Net")
    assert (found.tensors.keys(), found.note) == (wanted.keys(), "")


# Objects of other packages.


@pytest.fixture
def own_package() -> Any:
    """A package that is there when the file is written, and not when it is read."""
    module = types.ModuleType("another_project")

    class Settings:
        def __init__(self) -> None:
            raise_if_made.append(1)
            self.width = 3

    Settings.__module__, Settings.__qualname__ = "another_project", "Settings"
    raise_if_made: list[int] = []
    module.Settings = Settings  # type: ignore[attr-defined]
    sys.modules["another_project"] = module
    yield module
    sys.modules.pop("another_project", None)


OBJECTS = {
    "another_project.Settings": lambda package: package.Settings(),
    "omegaconf.dictconfig.DictConfig": lambda _: OmegaConf.create({"lr": 0.1, "widths": [1, 2]}),
    "argparse.Namespace": lambda _: Namespace(lr=0.1),
    "torch.nn.modules.linear.Linear": lambda _: {"layer": nn.Linear(2, 2), "kind": nn.ReLU},
}


@pytest.mark.parametrize("name", OBJECTS)
def test_weights_beside_objects_of_other_packages_are_read_alone(tmp_path, own_package, name):
    path = tmp_path / "x.ckpt"
    content = {"state_dict": STATE, "hyper_parameters": OBJECTS[name](own_package), "global_step": 7, "epoch": 2}
    torch.save(content, path)
    sys.modules.pop("another_project")
    assert_loads(path, "weights only: objects of ")
    found = read_weights(path)
    assert (found.number("global_step"), found.number("epoch")) == (7, 2)
    assert "hyper_parameters" not in found.record
    assert "another_project" not in sys.modules


class Call:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


CALLS = {
    "system": (os.system, "touch called"),
    "eval": (eval, "open('called', 'w')"),
    "bytearray": (bytearray, 1 << 40),
    "FloatTensor": (torch.FloatTensor, 1 << 40),
    "load": (torch.load, "other.ckpt"),
    "getattr": (getattr, Namespace(a=1), "a"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_functions_are_refused_as_ever(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "hyper_parameters": [Call(*CALLS[name]), Namespace(a=1)]}, "x.ckpt")
    with pytest.raises(AsksForCodeError, match=r"asks for code, which is not executed"):
        read_weights(Path("x.ckpt"))
    assert [path.name for path in Path().iterdir()] == ["x.ckpt"]


def test_tensor_made_by_an_object_is_not_taken(tmp_path):
    """What stands for the object is no tensor, so that the weight is missing."""
    torch.save({"state_dict": {**STATE, "fc.bias": Namespace(a=1)}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"1 missing \(fc.bias\)"):
        fitted(tmp_path / "x.ckpt")


# Other formats.


def test_programs_are_named(tmp_path):
    made = nn.Linear(2, 2)
    torch.jit.save(torch.jit.trace(made, torch.ones(1, 2)), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt is a TorchScript file .*save its weights alone"):
        read_weights(tmp_path / "x.pt")
    torch.export.save(torch.export.export(made, (torch.ones(1, 2),)), tmp_path / "x.pt2")
    with pytest.raises(ValueError, match=r"x\.pt2 is a program of torch\.export.*save its weights alone"):
        read_weights(tmp_path / "x.pt2")


def write_shards(folder: Path, index: Any = None) -> Path:
    names = sorted(STATE)
    files = {f"model-0000{n}-of-00002.safetensors": names[n::2] for n in range(2)}
    for file, held in files.items():
        save_file({name: STATE[name] for name in held}, folder / file)
    listed = {name: file for file, held in files.items() for name in held}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": listed} if index is None else index(listed)))
    return path


def test_shards_are_read_by_their_index(tmp_path):
    assert_loads(write_shards(tmp_path), "")


def test_shards_of_pickles_are_read_by_their_index(tmp_path):
    names = sorted(STATE)
    files = {f"pytorch_model-0000{n}-of-00002.bin": names[n::2] for n in range(2)}
    for file, held in files.items():
        torch.save({name: STATE[name] for name in held}, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, held in files.items() for name in held}}))
    assert_loads(index, "")
    with pytest.raises(ValueError, match=r"one of several files.* by their index pytorch_model\.bin\.index\.json"):
        fitted(tmp_path / "pytorch_model-00000-of-00002.bin")


def test_weights_in_the_older_weight_normalization_are_converted(tmp_path):
    old = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)))
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    found = fit_names(old.state_dict(), new.state_dict(), tmp_path, "Sequential").tensors
    new.load_state_dict(found)
    x = torch.randn(4, 3)
    torch.testing.assert_close(new(x), old(x))


def test_a_whole_module_is_named(tmp_path):
    torch.save(network(), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"asks for code, which is not executed .*save the state dict alone"):
        read_weights(tmp_path / "x.pt")


BAD_INDICES = {
    "outside": lambda listed: {"weight_map": {**listed, "fc.bias": "../secret.safetensors"}},
    "absolute": lambda listed: {"weight_map": {**listed, "fc.bias": "/etc/passwd"}},
    "a pickle": lambda listed: {"weight_map": {**listed, "fc.bias": "x.bin"}},
    "a list": lambda listed: [listed],
    "no files": lambda listed: {"weight_map": {}},
    "numbers": lambda listed: {"weight_map": {"fc.bias": 3}},
    "too few": lambda listed: {"weight_map": {k: v for k, v in listed.items() if k != "fc.bias"}},
    "too many": lambda listed: {"weight_map": {**listed, "x": listed["fc.bias"]}},
    "missing file": lambda listed: {"weight_map": {**listed, "x": "y.safetensors"}},
}


@pytest.mark.parametrize("name", BAD_INDICES)
def test_wrong_indices_are_refused_in_one_line(tmp_path, name):
    with pytest.raises(ValueError, match=str(tmp_path)) as raised:
        load_shards(write_shards(tmp_path, BAD_INDICES[name]))
    assert len(str(raised.value).splitlines()) == 1


# Inputs.


def test_images_are_standardized_with_given_statistics():
    images = torch.arange(0, 256, dtype=torch.uint8)[: 3 * 64].reshape(1, 3, 8, 8)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    expected = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    data = CIFAR10(mean=mean, std=std)
    torch.testing.assert_close(data.transform(images).double(), expected, rtol=1e-6, atol=1e-6)
    assert data.preprocessing.endswith("mean 0.1, 0.2, 0.3 and the standard deviation 0.5, 0.25, 2")
    assert CIFAR10.mean == (0.4914, 0.4822, 0.4465)  # that of the class stays


@pytest.mark.parametrize(
    "wrong",
    [{"mean": [0.1]}, {"std": [0.1]}, {"mean": [0.1, 0.2], "std": [1, 1]}, {"mean": [0.1], "std": [0]}],
    ids=str,
)
def test_wrong_statistics_are_refused(wrong):
    with pytest.raises(ValueError, match=r"give 1 numbers each, .* standard deviations > 0"):
        MNIST(**wrong)


@pytest.mark.parametrize("errs", [True, False])
def test_foreign_network_that_errs_on_most_examples_is_reported(tmp_path, errs):
    """The network that gives every image the class 0 errs on nine of ten images, or on those of the class 1 alone."""
    made = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        made[1].weight.zero_()
        made[1].bias.copy_(torch.arange(10).eq(0).float())
    torch.save(made.state_dict(), tmp_path / "x.pt")
    data = MNIST(source="sample", subset=100, classes=None if errs else [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9]])
    loss = nn.CrossEntropyLoss(reduction="none")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        analyze([tmp_path / "x.pt"], model=made, data=data, loss=loss, measures=[PerformanceMeasurer(["train"])])
    said = [str(one.message) for one in caught if "errs on" in str(one.message)]
    assert len(said) == errs
    assert all("pixels in [0, 1], not standardized: give --data.standardize true" in line for line in said)
