"""SingularValues, ClusterCount and Sharpness log the numbers of their measures for every replica."""

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch

from lnsgd import measures
from lnsgd.callbacks import ClusterCount, Sharpness, SingularValues
from lnsgd.data import SphereInputs
from lnsgd.label_noise import GaussianNoise
from lnsgd.measures import closed_forms
from lnsgd.models import MLP, Constant, Normal
from lnsgd.modules import Regressor
from lnsgd.replicas import ReplicaGrid, ReplicatedData, ReplicatedModule

STEPS, NEURONS = 20, 6
WEIGHT, SITE, OUTPUT = "net.layers.0.weight", "net.activations.0", "net.layers.0.output"
REPLICAS = ReplicaGrid(seeds=2, noise=[0.0, 0.5]).replicas(0)
APPROX = {"rel": 1e-5}


def trained(folder, callbacks):
    """Return the replicated module and its data after a few steps."""
    net = MLP([3, NEURONS, 1], bias=False, activation="cubic", init=[Normal(0.3), Constant(1)], train_layers=[0])
    module = ReplicatedModule(Regressor(net, label_noise=GaussianNoise(0.1)), REPLICAS)
    data = ReplicatedData(SphereInputs(), REPLICAS)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return module, data


def test_numbers_equal_those_of_the_measures(tmp_path):
    schedule = {"every_n_steps": 10}
    after = ["*layers.0"]
    callbacks = [
        SingularValues(number=2, layers=["*activations.0"], after=after, **schedule),
        ClusterCount(0.2, after, **schedule),
        Sharpness(**schedule),
    ]
    module, data = trained(tmp_path, callbacks)
    rows = pq.read_table(tmp_path / "measures.parquet").to_pylist()
    assert sorted({row["step"] for row in rows}) == [0, 10, STEPS]
    for replica in range(len(REPLICAS)):
        net = module.replica(replica).net
        train = data.of_replica(replica).splits["train"]
        weight, preactivations = net.layers[0].weight, net.layers[0](train.inputs)
        features = net.activations[0](preactivations)
        expected = {
            ("cluster_count", "", WEIGHT): measures.cluster_count(weight, 0.2),
            ("cluster_count", "train", OUTPUT): measures.cluster_count(preactivations.T, 0.2),
        }
        of_train = {SITE: features, OUTPUT: preactivations}
        for split, layer, matrix in (("", WEIGHT, weight), *(("train", name, of) for name, of in of_train.items())):
            values = measures.singular_values(matrix).tolist()
            expected["effective_rank", split, layer] = measures.effective_rank(values)
            expected |= {(f"singular_value_{k}", split, layer): values[k - 1] for k in (1, 2)}
        for name, value in vars(closed_forms.sharpness(net, train.inputs, train.labels)).items():
            expected[name, "train", ""] = value
        found = {
            (row["measure"], row["split"], row["layer"]): row["value"]
            for row in rows
            if row["step"] == STEPS and row["replica"] == replica
        }
        assert found == {key: pytest.approx(value, **APPROX) for key, value in expected.items()}


def test_measuring_changes_no_bit_of_training(tmp_path):
    callbacks = [SingularValues(every_n_steps=3), ClusterCount(every_n_steps=3), Sharpness(every_n_steps=3)]
    watched, _ = trained(tmp_path / "watched", callbacks)
    alone, _ = trained(tmp_path / "alone", [])
    assert all(torch.equal(a, b) for a, b in zip(watched.stack.parameters(), alone.stack.parameters()))


def test_two_callbacks_of_one_class_keep_separate_states():
    pairs = [
        (SingularValues(number=2), SingularValues(number=3)),
        (ClusterCount(0.1), ClusterCount(0.2)),
        (Sharpness(every_n_steps=2), Sharpness(every_n_steps=3)),
    ]
    assert all(one.state_key != other.state_key for one, other in pairs)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SingularValues(number=0), "number = 0"),
        (lambda: SingularValues(tolerance=1.0), "tolerance = 1.0"),
        (lambda: ClusterCount(-1.0), "tolerance = -1.0"),
    ],
)
def test_bad_settings_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_sharpness_refuses_other_networks():
    net = MLP([3, 4, 1])
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        callbacks=[Sharpness(every_n_steps=1)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(ValueError, match="closed forms for"):
        trainer.fit(Regressor(net), datamodule=SphereInputs())
