"""Add callbacks to a project that builds everything from Hydra configs, without a changed line of code.

    python examples/hydra/train.py [trainer.max_epochs=3 …]

As in lightning-hydra-template, `conf/train.yaml` names all classes. It lists measures under `callbacks:`.
"""

import hydra
import lightning as L
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset


class Net(L.LightningModule):
    """A classifier whose network and optimizer come from the config."""

    def __init__(self, net, optimizer):
        super().__init__()
        self.net, self.optimizer = net, optimizer

    def forward(self, inputs):
        return self.net(inputs)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return self.optimizer(params=self.parameters())


class Data(L.LightningDataModule):
    """Random points; the class is the largest of the first three coordinates."""

    def setup(self, stage=None):
        inputs = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))
        self.points = TensorDataset(inputs, inputs[:, :3].argmax(1))

    def train_dataloader(self):
        return DataLoader(Subset(self.points, range(200)), batch_size=20, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Subset(self.points, range(200, 300)), batch_size=100)


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg):
    """Build what the config names, and train."""
    L.seed_everything(cfg.seed, verbose=False)
    made = hydra.utils.instantiate(cfg)
    trainer = made.trainer(callbacks=list(made.callbacks.values()), logger=list(made.logger.values()))
    trainer.fit(made.model, made.data)
    for name in ("error/val", "active_fraction/val/net.1", "hessian_trace/train"):
        print(name, round(float(trainer.callback_metrics[name]), 3))


if __name__ == "__main__":
    main()
