"""Networks that were compiled, spread over devices or wrapped in a LightningModule: files and models of them."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from lnsgd.analysis import analyze
from lnsgd.analysis.unwrapping import unwrapped
from lnsgd.analysis.weights import fitted
from lnsgd.callbacks import ActiveNeurons, DistanceFromInit, HessianTrace, Performance
from lnsgd.data import InMemory
from tests.analysis.analyzed_runs import weights

LOSS = nn.CrossEntropyLoss(reduction="none")
INPUTS = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS[:, 0] > 0).long()


def net() -> nn.Sequential:
    made = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    made.load_state_dict(weights(0))
    return made


class Foreign(LightningModule):
    """Anyone's, with a metric that has a state."""

    def __init__(self, lr: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model: nn.Module = net()
        self.seen = MeanMetric()
        self.seen.persistent(True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model(inputs)

    def training_step(self, batch, _):
        self.seen.update(1.0)
        return LOSS(self(batch[0]), batch[1]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


def lightning_checkpoint(path: Path, compiled: bool) -> None:
    """That of a Trainer; a step of learning rate zero leaves the weights as they are."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_steps=1, accelerator="cpu", **quiet)
    module = Foreign()
    trainer.fit(module, DataLoader(TensorDataset(INPUTS, LABELS), batch_size=30))
    if compiled:
        module.model = torch.compile(module.model)
    trainer.save_checkpoint(path)


def inner_compiled() -> nn.Module:
    made = net()
    made[0] = torch.compile(made[0])
    return made


SAVED = {
    "compiled": lambda: torch.compile(net()),
    "compiled-within": inner_compiled,
    "parallel": lambda: nn.DataParallel(net()),
    "compiled-and-parallel": lambda: nn.DataParallel(torch.compile(net())),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(net()),
}

MODELS = {
    "plain": net,
    "compiled": lambda: torch.compile(net()),
    "compiled-within": inner_compiled,
    "parallel": lambda: nn.DataParallel(net()),
    "compiled-and-parallel": lambda: nn.DataParallel(torch.compile(net())),
}


def measured(file: Path, model: nn.Module) -> list[float]:
    measures = [Performance(), ActiveNeurons(["train"]), HessianTrace(), DistanceFromInit(per_tensor=False)]
    init = file.parent / "init.pt"
    torch.save(weights(1), init)
    data = InMemory((INPUTS, LABELS))
    return analyze([file], data=data, model=model, loss=LOSS, measures=measures, init=init).value.tolist()


@pytest.fixture
def expected(tmp_path: Path) -> list[float]:
    torch.save(weights(0), tmp_path / "plain.pt")
    return measured(tmp_path / "plain.pt", net())


@pytest.mark.parametrize("saved", SAVED)
def test_files_of_wrapped_networks(saved: str, expected: list[float], tmp_path: Path) -> None:
    torch.save(SAVED[saved]().state_dict(), tmp_path / "weights.pt")
    assert measured(tmp_path / "weights.pt", net()) == expected


@pytest.mark.parametrize("model", MODELS)
def test_wrapped_networks_are_measured_without_their_wrappers(
    model: str, expected: list[float], tmp_path: Path
) -> None:
    """A compiled network has no second derivatives, and does not call hooks that are added later."""
    given = MODELS[model]()
    assert measured(tmp_path / "plain.pt", given) == expected
    assert type(given) is type(MODELS[model]())  # what was given stays as it is


@pytest.mark.parametrize("compiled", [False, True])
def test_checkpoints_of_a_foreign_lightning_module(compiled: bool, expected: list[float], tmp_path: Path) -> None:
    lightning_checkpoint(tmp_path / "foreign.ckpt", compiled)
    assert measured(tmp_path / "foreign.ckpt", net()) == expected
    keys = torch.load(tmp_path / "foreign.ckpt", weights_only=True)["state_dict"]
    assert any("_orig_mod" in key for key in keys) == compiled
    assert any(key.startswith("seen.") for key in keys)


def test_a_module_compiled_in_place_is_not_called_compiled() -> None:
    made = net()
    made.compile()
    assert unwrapped(made) is made
    assert made._compiled_call_impl is None


def test_weights_of_a_network_for_the_module_around_it(tmp_path: Path) -> None:
    wanted = {f"model.{name}": tensor for name, tensor in weights(1).items()}
    found = fitted(weights(0), wanted, tmp_path, "Foreign")
    assert found.note == "names with the prefix 'model.' before them"
    assert {name: tensor.tolist() for name, tensor in found.tensors.items()} == {
        f"model.{name}": tensor.tolist() for name, tensor in weights(0).items()
    }


def test_names_that_have_nothing_in_common(tmp_path: Path) -> None:
    given = {f"{name}_": tensor for name, tensor in weights(0).items()}
    with pytest.raises(ValueError, match=r"4 missing \(0\.weight, 0\.bias.*4 unexpected \(0\.weight_.* --model$"):
        fitted(given, weights(0), tmp_path, "Sequential")
