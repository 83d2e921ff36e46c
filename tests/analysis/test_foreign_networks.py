"""Networks that were compiled, spread over devices or wrapped in a LightningModule: their files and models."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from lnsgd.analysis import analyze
from lnsgd.analysis.weights import fit_names, unwrapped
from lnsgd.data import InMemory
from lnsgd.measuring import (
    ActiveNeuronsMeasurer,
    DistanceFromInitMeasurer,
    HessianTraceMeasurer,
    PerformanceMeasurer,
)
from tests.analysis.analyzed_runs import points, small_net, weights

LOSS = nn.CrossEntropyLoss(reduction="none")
INPUTS, LABELS = points(30)


def net() -> nn.Sequential:
    made = small_net()
    made.load_state_dict(weights(0))
    return made


class Foreign(LightningModule):
    """A module of another project, with a metric that has a state."""

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
    """Write a checkpoint by a Trainer; a step with learning rate zero leaves the weights as they are."""
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


Rows = list[tuple[str, float]]


def measured(file: Path, model: nn.Module) -> Rows:
    """Return the name of the module or tensor, and the number, of each row of an analysis."""
    measures = [
        PerformanceMeasurer(),
        ActiveNeuronsMeasurer(["train"]),
        HessianTraceMeasurer(),
        DistanceFromInitMeasurer(per_tensor=False),
    ]
    init = file.parent / "init.pt"
    torch.save(weights(1), init)
    data = InMemory((INPUTS, LABELS))
    table = analyze([file], data=data, model=model, loss=LOSS, measures=measures, init=init)
    return list(zip(table.layer, table.value))


@pytest.fixture
def expected(tmp_path: Path) -> Rows:
    torch.save(weights(0), tmp_path / "plain.pt")
    return measured(tmp_path / "plain.pt", net())


@pytest.mark.parametrize("saved", SAVED)
def test_files_of_wrapped_networks(saved: str, expected: Rows, tmp_path: Path) -> None:
    torch.save(SAVED[saved]().state_dict(), tmp_path / "weights.pt")
    assert measured(tmp_path / "weights.pt", net()) == expected


@pytest.mark.parametrize("model", MODELS)
def test_wrapped_networks_are_measured_without_their_wrappers(model: str, expected: Rows, tmp_path: Path) -> None:
    """A compiled network has no second derivatives, and does not call hooks that are added later."""
    given = MODELS[model]()
    assert measured(tmp_path / "plain.pt", given) == expected
    assert type(given) is type(MODELS[model]())  # what was given stays as it is


@pytest.mark.parametrize("compiled", [False, True])
def test_checkpoints_of_a_foreign_lightning_module(compiled: bool, expected: Rows, tmp_path: Path) -> None:
    lightning_checkpoint(tmp_path / "foreign.ckpt", compiled)
    assert measured(tmp_path / "foreign.ckpt", net()) == expected
    keys = torch.load(tmp_path / "foreign.ckpt", weights_only=True)["state_dict"]
    assert any("_orig_mod" in key for key in keys) == compiled
    assert any(key.startswith("seen.") for key in keys)


def test_module_compiled_in_place_is_called_uncompiled() -> None:
    made = net()
    made.compile()
    assert unwrapped(made) is made
    assert made._compiled_call_impl is None


def test_weights_get_the_prefix_of_a_wrapping_module(tmp_path: Path) -> None:
    wanted = {f"model.{name}": tensor for name, tensor in weights(1).items()}
    found = fit_names(weights(0), wanted, tmp_path, "Foreign")
    assert found.note == "names with the prefix 'model.' before them"
    assert {name: tensor.tolist() for name, tensor in found.tensors.items()} == {
        f"model.{name}": tensor.tolist() for name, tensor in weights(0).items()
    }


def test_names_without_anything_in_common_are_refused(tmp_path: Path) -> None:
    given = {f"{name}_": tensor for name, tensor in weights(0).items()}
    with pytest.raises(ValueError, match=r"4 missing \(0\.weight, 0\.bias.*4 unexpected \(0\.weight_.* --model$"):
        fit_names(given, weights(0), tmp_path, "Sequential")
