"""Networks and data of the tests of `lnsgd.plain`."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

LOSS = nn.CrossEntropyLoss(reduction="none")


class SmallNetwork(nn.Module):
    """A convolutional network with what measuring could disturb: BatchNorm, dropout, an activation in place."""

    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4 * 6 * 6, classes)

    def forward(self, images):
        return self.head(self.drop(self.relu(self.norm(self.conv(images)))).flatten(1))


def network(seed=0):
    torch.manual_seed(seed)
    return SmallNetwork()


def dataset(seed=0, examples=40):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(examples, 1, 8, 8, generator=generator)
    return TensorDataset(images, torch.randint(3, (examples,), generator=generator))


def loaders(shuffle=True):
    return {"train": DataLoader(dataset(0), 8, shuffle=shuffle), "val": DataLoader(dataset(1, 21), 8)}
