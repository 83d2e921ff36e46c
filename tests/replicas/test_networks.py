"""The networks of a run, one by one, whether it is replicated or not."""

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn

from lnsgd.replicas import Networks, Replica, data_of_network, networks_of, single_data, steps_of_hidden_epochs
from tests.replicas.replicated_runs import EPOCH_STEPS, Case, assert_same, trainer_of, weights

REPLICAS = [Replica(5, noise=0.0), Replica(6, noise=0.0), Replica(5, noise=0.4), Replica(6, noise=0.4)]


class Foreign(LightningModule):
    """A module of somebody else's project."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)
        self.networks = [self.net]  # an attribute that means something else


def replicated() -> Networks:
    return networks_of(Case().together(REPLICAS)[0])


def test_any_module_is_its_own_single_network() -> None:
    module = Foreign()
    networks = networks_of(module)
    assert not networks.is_replicated
    assert list(networks) == [(0, module)]
    assert networks.template is networks.network(0) is module
    assert len(networks) == 1 and networks.seeds == [0]
    assert networks.valid == networks.running == networks.representatives == [0]
    assert networks.settings == [] and networks.stopped_by == {} and networks.prefix(0) == ""
    assert networks.scalars("loss", {0: 2.0}) == {"loss": 2.0}
    assert networks.scalars("loss", {}) == {}
    assert networks.weights(module.state_dict()).keys() == {0}


def test_replicas_are_networks_of_their_own() -> None:
    networks = replicated()
    assert networks.is_replicated
    assert len(networks) == 4 and networks.settings == REPLICAS and networks.seeds == [5, 6, 5, 6]
    assert [networks.prefix(index) for index in (0, 3)] == ["replica0/", "replica3/"]
    for index, module in networks:
        assert module is networks.template
        assert_same(weights(module), weights(networks.network(index)))
        assert_same(weights(module), weights(Case().template(REPLICAS[index])))


def test_scalars_of_replicas_are_statistics_over_groups() -> None:
    found = replicated().scalars("loss", {0: 1.0, 1: 3.0, 2: 5.0})
    assert found == {
        "loss/noise=0.0/mean": 2.0,
        "loss/noise=0.0/std": pytest.approx(2**0.5),
        "loss/noise=0.4/mean": 5.0,
    }


def test_diverged_replicas_are_not_networks_any_more() -> None:
    networks = replicated()
    networks.restore_frozen({"replicas": {"frozen": {"at": torch.tensor([3, -1, -1, 4]), "stopped_by": {3: "Rule"}}}})
    assert networks.valid == [1, 2, 3] and networks.running == [1, 2]
    assert networks.stopped_by == {3: "Rule"} and networks.frozen_at == {0: 3, 3: 4}
    assert networks.representatives == [1, 2]
    assert [index for index, _ in networks] == [1, 2, 3]
    networks.restore_frozen({})
    assert networks.valid == networks.running == [0, 1, 2, 3] and networks.stopped_by == {}


def test_weights_of_a_file_go_to_their_replicas() -> None:
    module, _ = Case().together(REPLICAS)
    by_network = networks_of(module).weights(module.state_dict())
    assert len(by_network) == 4
    for index, named in by_network.items():
        assert_same(named, weights(module.replica(index)))


def test_data_of_each_network() -> None:
    module, data = Case(options={"subset": 9}).together([Replica(5), Replica(6)])
    trainer_of(max_steps=2).fit(module, datamodule=data)
    assert single_data(data) is data.data and single_data(data.data) is data.data
    assert data_of_network(data, 1) is data.of_replica(1)
    assert data_of_network(data.data, 0) is data.data
    assert data_of_network(None, 0) is None


@pytest.mark.parametrize(("limits", "steps"), [({"max_steps": 7}, EPOCH_STEPS), ({"max_epochs": 2}, None)], ids=str)
def test_epochs_that_the_trainer_does_not_see(limits: dict[str, int], steps: int | None) -> None:
    module, data = Case().together(REPLICAS)
    trainer_of(**limits).fit(module, datamodule=data)
    assert steps_of_hidden_epochs(data) == steps
    assert steps_of_hidden_epochs(data.data) is None
