"""Strategies and networks whose weights are divided among processes are refused: a measure needs the whole network."""

from collections.abc import Iterator

import lightning.pytorch as unified
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lnsgd
from lnsgd.callbacks import DistanceFromInit
from lnsgd.runs.processes import check_strategy

LOSS = nn.CrossEntropyLoss(reduction="none")


class OwnStrategy(pl.strategies.FSDPStrategy):
    """A strategy of the user's own, whose name does not show what it does."""


SHARDING = {
    "fsdp": pl.strategies.FSDPStrategy,
    "subclass": OwnStrategy,
    "model-parallel": pl.strategies.ModelParallelStrategy,
    "unified-fsdp": unified.strategies.FSDPStrategy,
    "unified-model-parallel": unified.strategies.ModelParallelStrategy,
    "name": lambda: "fsdp_cpu_offload",
}


@pytest.mark.parametrize("make", SHARDING.values(), ids=SHARDING)
def test_strategy_that_divides_weights_is_refused(make):
    with pytest.raises(ValueError, match=r"^trainer\.strategy = .*: it divides the weights among processes") as error:
        check_strategy(make())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("package", [pl, unified], ids=["pytorch_lightning", "lightning"])
def test_other_strategies_are_accepted(package):
    for strategy in ("auto", "ddp", "ddp_fork", package.strategies.DDPStrategy(), package.Trainer(**QUIET).strategy):
        check_strategy(strategy)


QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def test_callback_refuses_the_strategy_of_any_trainer():
    trainer = unified.Trainer(**QUIET, devices=1, strategy=unified.strategies.ModelParallelStrategy())
    with pytest.raises(ValueError, match=r"^trainer\.strategy = ModelParallelStrategy"):
        DistanceFromInit().setup(trainer, pl.LightningModule(), "fit")


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("measure", ["weight_norms", "performance"])
def test_sharded_network_is_not_measured(one_process, measure):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    loader = DataLoader(TensorDataset(torch.randn(6, 4), torch.arange(6) % 3), 3)
    assert len(lnsgd.measure(net, loader, measure, loss=LOSS))
    fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match=r"^the weights of .*Sequential are divided among processes \(DTensor\)"):
        lnsgd.measure(net, loader, measure, loss=LOSS)
