"""Write a label noise and a measure of your own, and train with them.

    python examples/own_noise_and_measure.py

The noise replaces a label by the next class; the measure is the mean confidence. The rest comes with the base classes.
"""

import pandas as pd
import pytorch_lightning as pl
import torch

from lnsgd.callbacks.base import DataCallback
from lnsgd.data import MNIST
from lnsgd.label_noise import LabelNoise
from lnsgd.losses import CrossEntropy
from lnsgd.measures import outputs_of
from lnsgd.measuring import Measurement, Measurer
from lnsgd.models import MLP
from lnsgd.modules import Classifier


class NextClass(LabelNoise):
    """With probability p, a label y becomes (y + 1) mod C, drawn anew at every step."""

    targets = "hard"

    def __init__(self, p):
        self.p = p

    def draw(self, shape, generator, num_classes):
        return torch.rand(shape, generator=generator) < self.p

    def apply(self, labels, noise, num_classes):
        return torch.where(noise, (labels + 1) % num_classes, labels)


class ConfidenceMeasurer(Measurer):
    """Measures the mean of the largest class probability on the training examples of all processes."""

    headline = ("confidence", "confidence")  # the number in the progress bar, and its name there

    def measure(self, subject, source, context):
        batches = source.batches(subject, "train", None, context)
        largest = torch.cat([outputs_of(subject.module, x, source.outputs).softmax(1).amax(1) for x, _ in batches])
        total, count = context.share.reduce(torch.stack([largest.sum(), torch.ones_like(largest).sum()]))
        return [Measurement("confidence", "train", "", (total / count).item())]


class Confidence(ConfidenceMeasurer, DataCallback):
    """The measure with a schedule, for a Trainer."""


tables = []
for p in (0.0, 0.5):
    pl.seed_everything(0, verbose=False)
    module = Classifier(MLP([784, 100, 10]), CrossEntropy(), NextClass(p))
    trainer = pl.Trainer(max_steps=200, accelerator="cpu", callbacks=Confidence(every_n_steps=50))
    trainer.fit(module, datamodule=MNIST(source="sample", batch_size=32))
    tables.append(pd.read_parquet(f"{trainer.log_dir}/measures.parquet").assign(p=p))
print(pd.concat(tables).pivot(index="step", columns=["measure", "p"], values="value").round(3).to_string())
