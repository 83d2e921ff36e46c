"""WeightNorms, DeadNeurons and LargestOutput, in an ordinary and in a replicated run."""

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch

from lnsgd.callbacks import DeadNeurons, LargestOutput, WeightNorms
from lnsgd.data import GaussianInputs
from lnsgd.label_noise import UniformNoise
from lnsgd.loggers import CSVLogger
from lnsgd.losses import LogisticLoss
from lnsgd.models import MLP, Uniform
from lnsgd.modules import Classifier
from lnsgd.replicas import ReplicaGrid, ReplicatedData, ReplicatedModule
from tests.reference.measures import dead_loop, largest_magnitude_loop, linear_loop, statistics_loop
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}
UNITS, STEPS = 30, 4
SITE = "net.activations.0"
REPLICAS = ReplicaGrid(seeds=2, lr=[0.1, 1.0]).replicas(0)


def data():
    return GaussianInputs(dimension=1, train_size=40, test_size=25, eval_batch_size=10)


def classifier():
    torch.manual_seed(0)
    net = MLP([1, UNITS, 1], init=Uniform(2.0, biases=True))
    return Classifier(net, LogisticLoss(), label_noise=UniformNoise(1.0))


def trainer_in(folder):
    schedule = {"every_n_steps": 2}
    return pl.Trainer(
        accelerator="cpu",
        callbacks=[
            WeightNorms(**schedule),
            DeadNeurons(splits=["train", "val"], **schedule),
            LargestOutput(splits=["train", "val"], **schedule),
        ],
        logger=CSVLogger(str(folder), resume=False),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_steps=STEPS,
    )


def final(folder):
    """Return the numbers of the last step by (replica, measure, split, layer)."""
    rows = pq.read_table(folder / "measures.parquet").to_pylist()
    assert sorted({row["step"] for row in rows}) == [0, 2, STEPS]
    return {
        (row["replica"], row["measure"], row["split"], row["layer"]): row["value"]
        for row in rows
        if row["step"] == STEPS
    }


@pytest.fixture(scope="module", params=["alone", "replicas"])
def trained(request, tmp_path_factory):
    """Return the last measurements, and by replica the final network and its data."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "alone":
        module, source = classifier(), data()
        trainer_in(folder).fit(module, datamodule=source)
        return final(folder), {0: (module, source)}
    many, source = ReplicatedModule(classifier(), REPLICAS), ReplicatedData(data(), REPLICAS)
    trainer_in(folder).fit(many, datamodule=source)
    return final(folder), {i: (many.replica(i), source.of_replica(i)) for i in range(len(REPLICAS))}


def test_norms_belong_to_the_final_weights(trained):
    found, networks = trained
    for replica, (module, _) in networks.items():
        for name, parameter in module.named_parameters():
            norm, mean, largest = statistics_loop(parameter.detach())
            assert found[replica, "norm", "", name] == pytest.approx(norm, **APPROX)
            if name.endswith("bias"):
                assert found[replica, "bias_mean", "", name] == pytest.approx(mean, **APPROX)
                assert found[replica, "bias_max", "", name] == largest


def test_only_biases_have_statistics_of_biases(trained):
    found, _ = trained
    layers = {layer for _, measure, _, layer in found if measure in ("bias_mean", "bias_max")}
    assert layers == {"net.layers.0.bias", "net.layers.1.bias"}


@pytest.mark.parametrize("split", ["train", "val"])
def test_dead_neurons_belong_to_the_final_weights(trained, split):
    found, networks = trained
    dead = []
    for replica, (module, source) in networks.items():
        layer = module.net.layers[0]
        dead.append(dead_loop(linear_loop(source.splits[split].inputs, layer.weight, layer.bias)))
        assert found[replica, "dead_count", split, SITE] == dead[-1]
        assert found[replica, "dead_fraction", split, SITE] == dead[-1] / UNITS
    assert max(dead) > 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_largest_output_belongs_to_the_final_weights(trained, split):
    found, networks = trained
    for replica, (module, source) in networks.items():
        with torch.no_grad():
            expected = largest_magnitude_loop(module.net(source.splits[split].inputs).tolist())
        assert found[replica, "largest_output", split, ""] == pytest.approx(expected, rel=1e-5)


def test_callbacks_with_other_settings_have_other_states():
    for kind in (DeadNeurons, LargestOutput):
        assert kind(splits=["train"]).state_key != kind(splits=["val"]).state_key
        assert kind(examples=10).state_key != kind(examples=20).state_key
    assert WeightNorms(every_n_steps=1).state_key != WeightNorms(every_n_steps=2).state_key
