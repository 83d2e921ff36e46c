"""`SpectralDensity` has the options of the other curvature callbacks: a limit of its time, and averaged weights."""

import copy
import logging

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from safetensors import safe_open
from safetensors.torch import load_file

from lnsgd import measures, rng
from lnsgd.callbacks import SpectralDensity
from tests.callbacks.test_curvature_callbacks import EXAMPLES, Images, classifier, data, subset, trainer_in

SETTINGS = {"examples": EXAMPLES, "probes": 3, "steps": 7}


class KeepsTrained(pl.Callback):
    """Keeps a copy of the trained network, in whose place averages are returned."""

    def on_train_batch_end(self, trainer, module, *args):
        self.net = copy.deepcopy(module.net)


def nodes(net, source):
    generator = rng.generator(0, "probes", 0)
    loss = classifier().loss
    return measures.spectral_density(net, loss, subset(source), probes=3, steps=7, generator=generator).nodes


def test_the_spectrum_of_averages_is_drawn_beside_that_of_the_trained_weights(tmp_path):
    module, source, kept, images = classifier(), data(), KeepsTrained(), Images()
    callbacks = [EMAWeightAveraging(decay=0.5), kept, SpectralDensity(averaged=True, top=2, **SETTINGS)]
    trainer_in(tmp_path, callbacks, images).fit(module, datamodule=source)
    networks = {"": ("trained", kept.net), "averaged_": ("averaged", module.net)}
    for prefix, (weights, net) in networks.items():
        path = tmp_path / f"{prefix}spectral_density_train.safetensors"
        torch.testing.assert_close(load_file(path)["nodes"], nodes(net, source), rtol=1e-4, atol=1e-5)
        with safe_open(path, "pt") as file:
            assert weights in file.metadata().values()
        assert (tmp_path / "figures" / f"{prefix}spectral_density_train.png").exists()
    assert not torch.allclose(nodes(kept.net, source), nodes(module.net, source), rtol=1e-3)
    assert sorted(images.images) == ["averaged/spectral_density/train", "spectral_density/train"]


def test_averages_that_nobody_keeps_are_refused_before_training(tmp_path):
    trainer = trainer_in(tmp_path, [SpectralDensity(averaged=True, **SETTINGS)])
    with pytest.raises(ValueError, match="SpectralDensity: averaged = True, and no callback of the Trainer keeps"):
        trainer.fit(classifier(), datamodule=data())
    assert trainer.global_step == 0


@pytest.mark.parametrize("limit", [1e-12, 1e12, None])
def test_a_spectrum_that_takes_too_long_is_left_out_and_this_is_said(limit, tmp_path, caplog):
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        callback = SpectralDensity(max_overhead=limit, top=2, **SETTINGS)
        trainer_in(tmp_path, [callback]).fit(classifier(), datamodule=data())
    is_drawn = limit is None or limit > 1
    assert (tmp_path / "spectral_density_train.safetensors").exists() == is_drawn
    assert (tmp_path / "figures").exists() == is_drawn
    said = [record.getMessage() for record in caplog.records if "SpectralDensity is left out" in record.getMessage()]
    assert len(said) == (not is_drawn)
    assert all("more than max_overhead = 1e-12 allows; give max_overhead: null to take it" in line for line in said)


def test_a_limit_changes_no_number(tmp_path):
    found = []
    for limit in (None, 1e12):
        trainer_in(tmp_path / str(limit), [SpectralDensity(max_overhead=limit, top=2, **SETTINGS)]).fit(
            classifier(), datamodule=data()
        )
        found.append(load_file(tmp_path / str(limit) / "spectral_density_train.safetensors"))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("limit", [0.0, -1.0])
def test_a_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(ValueError, match=r"SpectralDensity: max_overhead = .*; give a fraction"):
        SpectralDensity(max_overhead=limit)
