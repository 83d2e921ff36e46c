"""Measure a checkpoint that somebody else has published.

    python examples/published_checkpoint.py [CHECKPOINT]

The ResNet-20 of Yerlan Idelbayev (`resnet20-12fca82f.th`) is a file of `torch.save` whose `state_dict` has names that
begin with `module.`. Without an argument, this program writes such a file for a network that is not trained. lnsgd
reads the file without executing any code in it.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lnsgd
from lnsgd.analysis import analyze
from lnsgd.data import InMemory
from lnsgd.measuring import WeightNormsMeasurer
from lnsgd.models import ResNet20
from lnsgd.untrusted.checkpoint import load_checkpoint


def write_like_idelbayev(path):
    """Write a file in the format of the published one, without the counters that older versions of torch lacked."""
    weights = nn.DataParallel(ResNet20()).state_dict()
    published = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": published, "best_prec1": 10.0}, path)


torch.manual_seed(0)
if len(sys.argv) > 1:
    path = Path(sys.argv[1])
else:
    path = Path(tempfile.mkdtemp()) / "resnet20.th"
    write_like_idelbayev(path)

# One network at a time: read the weights, put them into your own module, and measure it.
weights = load_checkpoint(path)["state_dict"]
net = ResNet20()
net.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})

# Put CIFAR-10 here, prepared as for training: divided by 255, less the mean of the channel, over its deviation.
images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
loader = DataLoader(TensorDataset(images, labels), batch_size=32)
loss = nn.CrossEntropyLoss(reduction="none")  # one number for each example
table = lnsgd.measure(net, {"val": loader}, ["performance", "active_neurons"], loss=loss)
print(table[table["measure"] != "active_count"].head(4).to_string(index=False))

# Many files at once, with what was measured before kept in a folder: `analyze`, or `lnsgd analyze` in the shell.
data = InMemory((images, labels), num_classes=10)
for row in analyze([path], model=ResNet20(), data=data, measures=[WeightNormsMeasurer()]).head(3).itertuples():
    print(row.measure, row.layer, round(row.value, 3))
