"""CIFAR-10."""

import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lnsgd.data.augmentation import Augmentation, CropAndFlip
from lnsgd.data.official import OfficialImageData, damaged, read_bytes
from lnsgd.data.tensors import LabelledTensors
from lnsgd.untrusted.pickled_arrays import PickledArray, read_pickled

PIXELS = 3 * 32 * 32
# In the Python version each image also has a label, a name, and pickle opcodes.
_MOST_BYTES_OF_EXAMPLE = 2 * PIXELS

PYTHON, BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"


class CIFAR10(OfficialImageData):
    """CIFAR-10 (Krizhevsky): colour photographs, 3 × 32 × 32, 50,000 for training and 10,000 for testing.

    The files are read from ``<data_dir>/cifar-10-batches-py/``, the version that torchvision downloads, or from
    ``<data_dir>/cifar-10-batches-bin/``. The pickles of the former are read without running code from them.

    Args:
        data_dir: Folder of data sets; by default ``$LNSGD_DATA_DIR``, else ``~/.cache/lnsgd``.
        augment: Crop every training image at random from a black frame of 4 pixels around it, and mirror it with
            probability ½ (``lnsgd.data.augmentation``). Validation, testing and measuring use the images as they are.
        options: See `ImageData`.
    """

    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    batches: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test": ("test_batch",),
    }
    examples_per_file: ClassVar[int] = 10_000

    def __init__(self, data_dir: str | None = None, augment: bool = True, **options: Any) -> None:
        super().__init__(data_dir, **options)
        self.augment = augment

    def augmentation(self) -> Augmentation | None:
        """Return random crops and mirror images, keyed by the seed."""
        return CropAndFlip(self.seed) if self.augment else None

    @property
    def layouts(self) -> dict[Path, list[str]]:
        """The folder of the Python version, which torchvision downloads, and the folder of the binary version."""
        names = [name for part in self.batches.values() for name in part]
        return {self.folder / PYTHON: names, self.folder / BINARY: [f"{name}.bin" for name in names]}

    def download(self, folder: Path) -> Path:
        """Download and unpack the Python version."""
        from torchvision.datasets import CIFAR10 as SOURCE
        from torchvision.datasets.utils import download_url

        download_url(SOURCE.url, folder, SOURCE.filename, SOURCE.tgz_md5)
        unpacked = folder / SOURCE.base_folder
        unpacked.mkdir(exist_ok=True)
        try:
            with tarfile.open(folder / SOURCE.filename) as archive:
                for name in self.layouts[self.folder / PYTHON]:  # only these, so that nothing is written elsewhere
                    with archive.extractfile(f"{SOURCE.base_folder}/{name}") as source:  # type: ignore[union-attr]
                        (unpacked / name).write_bytes(source.read())
        except (tarfile.TarError, KeyError, AttributeError) as error:
            raise OSError(f"{SOURCE.filename} cannot be unpacked: {error}") from error
        return unpacked

    def load(self, train: bool) -> LabelledTensors:
        """Read the official files; images (n, 3, 32, 32) uint8, labels (n,) int64.

        Raises:
            ValueError: a file is damaged.
        """
        raw, n = self.raw, self.examples_per_file
        names = self.batches["train" if train else "test"]
        pixels, labels = torch.empty(len(names) * n, PIXELS, dtype=torch.uint8), []
        for i, name in enumerate(names):
            path = raw / (f"{name}.bin" if raw.name == BINARY else name)
            images, classes = read_binary(path, n) if raw.name == BINARY else read_python(path, n)
            if not set(classes.tolist()) <= set(range(len(self.class_names))):
                raise damaged(path, f"it has labels {classes.min()} to {classes.max()}, 0 to 9 expected")
            pixels[i * n : (i + 1) * n].numpy()[:] = images
            labels.append(torch.from_numpy(classes.astype(np.int64)))
        return LabelledTensors(pixels.view(-1, 3, 32, 32), torch.cat(labels))


def read_binary(path: Path, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a file of the binary version: for each image a byte for its class, then 3,072 pixels.

    Args:
        path: The file.
        examples: Number of images n that it must have.

    Returns:
        Images (n, 3072) uint8, channel by channel and row by row, and their classes (n,).

    Raises:
        ValueError: the file has another size.
    """
    rows = read_bytes(path, examples * (1 + PIXELS)).reshape(examples, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0]


def read_python(path: Path, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a file of the Python version: a pickled dictionary with ``data`` and ``labels``.

    Args:
        path: The file.
        examples: Number of images n that it must have.

    Returns:
        Images (n, 3072) uint8, channel by channel and row by row, and their classes (n,).

    Raises:
        ValueError: the file is not such a pickle, is cut short, or would run code.
    """
    try:
        content = read_pickled(path, largest=examples * _MOST_BYTES_OF_EXAMPLE)
        images, labels = content[b"data"], content[b"labels"]
        if not isinstance(images, PickledArray) or {type(label) for label in labels} != {int}:
            raise ValueError("data is not an array, or labels are not integers")
        pixels, classes = images.to_numpy(), np.array(labels)
    except Exception as error:  # a pickle may hold anything at any of these places
        raise damaged(path, str(error) or type(error).__name__) from error
    if pixels.shape != (examples, PIXELS) or classes.shape != (examples,):
        found = f"images {pixels.shape} and {len(classes)} labels"
        raise damaged(path, f"{found}, ({examples}, {PIXELS}) and {examples} expected")
    return pixels, classes
