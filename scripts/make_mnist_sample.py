"""Make lnsgd/data/sample/mnist_sample.safetensors.gz from the full MNIST.

    python scripts/make_mnist_sample.py DATA_DIR

The images are a uniform draw without replacement, keyed, kept in the official order.
"""

import gzip
import sys
from pathlib import Path

import torch
from safetensors.torch import save

from lnsgd import rng
from lnsgd.data.mnist import MNIST, SAMPLE

SIZES = {"train": 10_000, "test": 2_000}


def main(data_dir: str) -> None:
    """Draw the sample and write it beside its README."""
    full = MNIST(data_dir)
    tensors = {}
    for part, size in SIZES.items():
        data = full.load(train=part == "train")
        chosen = torch.randperm(len(data), generator=rng.generator(0, "subset", part == "test"))[:size].sort().values
        tensors[f"{part}_images"] = data.inputs[chosen, 0].contiguous()
        tensors[f"{part}_labels"] = data.labels[chosen].to(torch.uint8)
    target = Path(__file__).parents[1] / "lnsgd" / "data" / "sample" / SAMPLE
    target.write_bytes(gzip.compress(save(tensors), compresslevel=9, mtime=0))
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
