"""Watch a network in a plain PyTorch loop, and measure it once at the end.

    python examples/plain_loop.py

The loop is yours: it needs neither Lightning nor a module or data of lnsgd. `lnsgd.Watch` changes no bit of it.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lnsgd

torch.manual_seed(0)
inputs = torch.randn(600, 10)  # put your data here
labels = inputs[:, :3].argmax(1)
train = DataLoader(TensorDataset(inputs[:400], labels[:400]), batch_size=20, shuffle=True)
val = DataLoader(TensorDataset(inputs[400:], labels[400:]), batch_size=200)

net = nn.Sequential(nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 3))
optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
loss = nn.CrossEntropyLoss(reduction="none")  # one number for each example

measures = ["performance", "active_neurons", "distance_from_init"]
with lnsgd.Watch(net, {"train": train, "val": val}, measures, every=100, loss=loss) as watch:
    step = 0
    for epoch in range(20):
        for x, y in train:
            # Label noise: with probability 0.2, a label is drawn anew at each step.
            noisy = torch.where(torch.rand(len(y)) < 0.2, torch.randint(3, (len(y),)), y)
            optimizer.zero_grad()
            loss(net(x), noisy).mean().backward()
            optimizer.step()
            step += 1
            watch.step(step, epoch)

table = watch.frame()
shown = table[table["layer"].isin(["", "total"]) & (table["measure"] != "active_count")]
print(shown.pivot(index="step", columns=["measure", "split"], values="value").round(3).to_string())

# At the end also the flatness of the loss: one row for the network and one for each parameter, with standard errors.
final = lnsgd.measure(net, {"train": train}, ["hessian_trace"], loss=loss)
print(final.round(3).to_string(index=False))
