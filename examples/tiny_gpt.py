"""Watch a tiny GPT of transformers while it learns to copy, in a plain loop.

    python examples/tiny_gpt.py

The loss of a language model is a mean over tokens: the label of a token is the next token, and tokens that do not
count have the label -100. `batch=` says where a batch has inputs and labels.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

import lnsgd
from lnsgd.measuring import ActiveNeuronsMeasurer

# A text is eight random tokens, twice; only the second half can be predicted, so only it counts.
torch.manual_seed(0)
HALF, VOCABULARY = 8, 20
texts = torch.randint(VOCABULARY, (256, HALF)).repeat(1, 2)


def next_tokens(ids):
    """Return the next token of each token of the second half, and -100 elsewhere."""
    labels = nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    labels[:, : HALF - 1] = -100
    return labels


loader = DataLoader([{"input_ids": ids} for ids in texts], batch_size=32, shuffle=True)
sizes = {"vocab_size": VOCABULARY, "n_positions": 2 * HALF, "n_embd": 32, "n_layer": 2, "n_head": 2}
net = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None))
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)

watch = lnsgd.Watch(
    net,
    loader,
    ["performance", "distance_from_init", ActiveNeuronsMeasurer(["train"], layers=["*.mlp.act"])],
    every=40,
    loss=nn.CrossEntropyLoss(reduction="none"),  # one number for each token
    batch=lambda batch: ({"input_ids": batch["input_ids"]}, next_tokens(batch["input_ids"])),
    outputs=lambda network, inputs: network(**inputs).logits,
)
with watch:
    step = 0
    for _ in range(15):
        for batch in loader:
            ids = batch["input_ids"]
            logits = net(input_ids=ids).logits
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits.flatten(0, 1), next_tokens(ids).flatten()).backward()
            optimizer.step()
            step += 1
            watch.step(step)

table = watch.frame()
of_network = table[table["layer"].isin(["", "transformer.h.0.mlp.act"])]
print(of_network.pivot(index="step", columns="measure", values="value").round(3).to_string())
