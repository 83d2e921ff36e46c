"""Measure a ConvNeXt of timm before and after a few steps.

    python examples/timm_convnext.py

`lnsgd.measure` needs neither a Trainer nor a module of its own kind, and returns a table.
"""

import copy

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lnsgd
from lnsgd.measuring import HessianTraceMeasurer

torch.manual_seed(0)
images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))  # put your data here
loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True)
net = timm.create_model("convnext_atto", num_classes=10, depths=(1, 1, 1, 1), dims=(8, 16, 32, 64))
loss = nn.CrossEntropyLoss(reduction="none")  # one number for each example

measures = [
    "performance",
    "active_neurons",  # of the GELU in each block: units whose pre-activation is positive
    "distance_from_init",
    # An estimate from at most 32 probes; `stderr` in the table is its standard error.
    HessianTraceMeasurer(examples=16, rtol=0.3, max_probes=32),
]
initial = copy.deepcopy(net)
before = lnsgd.measure(net, loader, measures, loss=loss, init=initial)

optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
for _ in range(3):
    for x, y in loader:
        optimizer.zero_grad()
        loss(net(x), y).mean().backward()
        optimizer.step()

after = lnsgd.measure(net, loader, measures, loss=loss, init=initial)
keys = ["measure", "split", "layer"]
both = before.merge(after, on=keys, suffixes=(" before", " after"))
of_parameters = both["layer"].str.contains("weight|bias|gamma")  # the values of single parameters
print(both[~of_parameters].round(3).to_string(index=False))
