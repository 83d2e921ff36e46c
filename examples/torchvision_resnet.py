"""Add measures to a ResNet of torchvision in a LightningModule of your own.

    python examples/torchvision_resnet.py [FOLDER]

The module and the data know nothing of lnsgd; the callbacks are the only change. `import pytorch_lightning as pl` works
in the same way.
"""

import sys

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from lnsgd.callbacks import ActiveNeurons, DistanceFromInit, Performance


class Net(L.LightningModule):
    """A classifier as anybody would write it."""

    def __init__(self):
        super().__init__()
        self.net = resnet18(num_classes=10)

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


torch.manual_seed(0)
images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))  # put your data here
loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True)

loss = nn.CrossEntropyLoss(reduction="none")  # one number for each example
callbacks = [
    Performance(["train"], loss=loss),
    ActiveNeurons(["train"]),  # every ReLU; the one of a residual block is called twice, and is `relu#1` and `relu#2`
    DistanceFromInit(per_tensor=False, every_n_steps=2),
]
trainer = L.Trainer(
    max_epochs=2,
    accelerator="cpu",
    callbacks=callbacks,
    logger=CSVLogger(sys.argv[1] if len(sys.argv) > 1 else "runs", name="resnet"),
    enable_progress_bar=False,
    enable_checkpointing=False,
    log_every_n_steps=1,
)
trainer.fit(Net(), loader)
for name in ("error/train", "active_fraction/train/net.relu", "distance_from_init"):
    print(name, round(float(trainer.callback_metrics[name]), 3))
