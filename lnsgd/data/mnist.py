"""MNIST, in full or as the sample that ships with the package, and Fashion-MNIST."""

import gzip
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lnsgd.data.official import OfficialImageData, damaged, read_bytes
from lnsgd.data.tensors import LabelledTensors

SAMPLE = "mnist_sample.safetensors.gz"


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read an IDX file of unsigned bytes, the official format of MNIST.

    Args:
        path: The unpacked file.
        shape: The shape that its array must have.

    Raises:
        ValueError: the file does not have this format and shape, or is cut short.
    """
    header = np.array([8 * 256 + len(shape), *shape], ">u4").tobytes()
    content = read_bytes(path, len(header) + int(np.prod(shape)))
    if content[: len(header)].tobytes() != header:
        raise damaged(path, f"its header is not that of {' × '.join(map(str, shape))} bytes")
    return torch.from_numpy(content[len(header) :].reshape(shape))


class IdxImageData(OfficialImageData):
    """Base of the data sets in MNIST's official layout ``<data_dir>/<name>/raw/*-ubyte``.

    Args:
        data_dir: Folder of data sets; by default ``$LNSGD_DATA_DIR``, else ``~/.cache/lnsgd``.
        options: See `ImageData`.
    """

    sizes: ClassVar[dict[str, int]] = {"train": 60_000, "t10k": 10_000}

    @property
    def layouts(self) -> dict[Path, list[str]]:
        """The folder of the four files."""
        names = [f"{part}-{kind}-ubyte" for part in self.sizes for kind in ("images-idx3", "labels-idx1")]
        return {self.folder / type(self).__name__ / "raw": names}

    def download(self, folder: Path) -> Path:
        """Download and unpack the four files."""
        from torchvision import datasets

        return Path(getattr(datasets, type(self).__name__)(root=folder, download=True).raw_folder)

    def load(self, train: bool) -> LabelledTensors:
        """Read the official files; images (n, 1, 28, 28) uint8, labels (n,) int64.

        Raises:
            ValueError: a file is damaged.
        """
        part = "train" if train else "t10k"
        n = self.sizes[part]
        images = read_idx(self.raw / f"{part}-images-idx3-ubyte", (n, 28, 28))
        labels = read_idx(self.raw / f"{part}-labels-idx1-ubyte", (n,)).long()
        if labels.max() >= len(self.class_names):
            raise damaged(self.raw / f"{part}-labels-idx1-ubyte", f"it has a label {labels.max()}")
        return LabelledTensors(images.unsqueeze(1), labels)


class MNIST(IdxImageData):
    """MNIST (LeCun and Cortes): handwritten digits, 28 × 28, 60,000 for training and 10,000 for testing.

    Args:
        data_dir: Folder of data sets; by default ``$LNSGD_DATA_DIR``, else ``~/.cache/lnsgd``.
        source: ``full``, or ``sample``: 10,000 training and 2,000 test images that ship with lnsgd.
        options: See `ImageData`.
    """

    mean = (0.1307,)
    std = (0.3081,)
    class_names = tuple("0123456789")

    def __init__(self, data_dir: str | None = None, source: Literal["full", "sample"] = "full", **options: Any) -> None:
        super().__init__(data_dir, **options)
        if source not in ("full", "sample"):
            raise ValueError(f"source = {source!r}; choose full or sample")
        self.source = source

    def prepare_data(self) -> None:
        """Download missing files; the sample needs none."""
        if self.source == "full":
            super().prepare_data()

    def load(self, train: bool) -> LabelledTensors:
        """Read the official set or its sample; images (n, 1, 28, 28) uint8, labels (n,) int64."""
        if self.source == "full":
            return super().load(train)
        from safetensors.torch import load

        packed = (files("lnsgd.data") / "sample" / SAMPLE).read_bytes()
        tensors, part = load(gzip.decompress(packed)), "train" if train else "test"
        return LabelledTensors(tensors[f"{part}_images"].unsqueeze(1), tensors[f"{part}_labels"].long())


class FashionMNIST(IdxImageData):
    """Fashion-MNIST (Xiao, Rasul, Vollgraf): ten kinds of clothing in MNIST's format and sizes.

    Args:
        data_dir: Folder of data sets; by default ``$LNSGD_DATA_DIR``, else ``~/.cache/lnsgd``.
        options: See `ImageData`.
    """

    mean = (0.2860,)
    std = (0.3530,)
    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
