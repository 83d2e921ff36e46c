"""The DataModule of the project."""

import torch
from lightning import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset, random_split


class DigitsDataModule(LightningDataModule):
    """Random images of 8 × 8 pixels, with the splits and hooks of the template."""

    def __init__(self, train_val_test_split=(96, 32, 32), batch_size: int = 16, num_workers: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.data_train = self.data_val = self.data_test = None

    def setup(self, stage: str | None = None) -> None:
        if self.data_train or self.data_val or self.data_test:
            return
        generator = torch.Generator().manual_seed(42)
        parts = [
            TensorDataset(torch.rand(80, 1, 8, 8, generator=generator), torch.randint(10, (80,), generator=generator))
            for _ in range(2)
        ]
        split = list(self.hparams.train_val_test_split)
        self.data_train, self.data_val, self.data_test = random_split(ConcatDataset(parts), split, generator)

    def loader(self, data, shuffle: bool) -> DataLoader:
        options = {"batch_size": self.hparams.batch_size, "num_workers": self.hparams.num_workers}
        return DataLoader(data, shuffle=shuffle, **options)

    def train_dataloader(self) -> DataLoader:
        return self.loader(self.data_train, True)

    def val_dataloader(self) -> DataLoader:
        return self.loader(self.data_val, False)

    def test_dataloader(self) -> DataLoader:
        return self.loader(self.data_test, False)
