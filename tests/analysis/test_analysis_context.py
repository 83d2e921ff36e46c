"""Measuring without a Trainer: the hooks of batch transfer, the loaders of the data, the precision."""

import ast
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lnsgd.analysis
from lnsgd.analysis import analyze
from lnsgd.analysis.context import AnalysisContext, choose_device, precision_plugin
from lnsgd.measuring import PerformanceMeasurer
from tests.analysis.analyzed_runs import points, small_net, weights

CPU = torch.device("cpu")
POINTS = TensorDataset(*points(20))


class HookedData(LightningDataModule):
    """Data whose hooks change the inputs one after the other."""

    def train_dataloader(self):
        return DataLoader(POINTS, batch_size=10)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0] + 1, batch[1]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * 2, batch[1]


class TrainerData(HookedData):
    """Data with a hook that asks for its Trainer."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return (batch[0] + self.trainer.training, batch[1])


class HookedModule(LightningModule):
    """A module with loaders and a hook of its own."""

    def val_dataloader(self):
        return [DataLoader(POINTS, batch_size=4)]

    def test_dataloader(self):
        return [DataLoader(POINTS), DataLoader(POINTS)]

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return -batch[0], batch[1]


def context(data: LightningDataModule | None) -> AnalysisContext:
    return AnalysisContext(HookedModule(), data, CPU, precision_plugin("32-true", CPU))


def analyze_on(data: LightningDataModule, folder: Path) -> list[float]:
    torch.save(weights(0), folder / "weights.pt")
    options = {"model": small_net(), "loss": nn.CrossEntropyLoss(reduction="none"), "accelerator": "cpu"}
    table = analyze([folder / "weights.pt"], data=data, measures=[PerformanceMeasurer(["train"])], **options)
    return table[table.measure == "loss"].value.tolist()


def test_hooks_of_the_data_are_called_in_order(tmp_path: Path) -> None:
    class ChangedData(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset((POINTS.tensors[0] + 1) * 2, POINTS.tensors[1]), batch_size=10)

    assert analyze_on(HookedData(), tmp_path) == analyze_on(ChangedData(), tmp_path)


def test_hooks_of_the_module_are_called_where_the_data_has_none() -> None:
    batch = [torch.ones(2), torch.zeros(2)]
    assert context(None).on_device(batch)[0].tolist() == [-1, -1]
    assert context(HookedData()).on_device(batch)[0].tolist() == [4, 4]


def test_hook_that_needs_a_trainer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on_after_batch_transfer of TrainerData needs a Trainer"):
        analyze_on(TrainerData(), tmp_path)


def test_loaders_of_the_module_are_used_where_the_data_has_none() -> None:
    assert context(HookedData()).loader("train").batch_size == 10
    loaders = context(HookedData())
    assert loaders.loader("val").batch_size == 4
    assert loaders.loader("val") is loaders.loader("val")  # so that what was read from it is found again
    with pytest.raises(ValueError, match="the test data is a list of 2 loaders"):
        context(HookedData()).loader("test")
    with pytest.raises(ValueError, match="the train data is missing: HookedModule has no train_dataloader"):
        context(None).loader("train")


@pytest.mark.parametrize(
    "precision", [16, "32", 64, "bf16", "16-true", "bf16-true", "32-true", "bf16-mixed", "64-true"]
)
def test_precision_is_that_of_a_trainer(precision: object) -> None:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", precision=precision, **quiet)
    made = precision_plugin(precision, CPU)
    assert type(made) is type(trainer.precision_plugin)
    assert made.precision == trainer.precision_plugin.precision


def test_unknown_precision_and_accelerator_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer\.precision = int8 of the run's config is unknown; choose one of"):
        precision_plugin("int8", CPU)
    with pytest.raises(ValueError, match="accelerator = tpu; choose auto, cpu or cuda"):
        choose_device("tpu")


def test_analysis_imports_no_callback_and_no_trainer() -> None:
    for path in Path(lnsgd.analysis.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith("lnsgd.callbacks"), path
                assert "Trainer" not in [alias.name for alias in node.names], path
