"""Random changes of training images, made where the images are, a batch at a time."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from lnsgd.streams import CropStream


class Augmentation(ABC):
    """Interface of an augmentation: random numbers for each example of a run, and what they do to it.

    Examples are counted from the first step of the run on, as for their order and label noise; so neither batches,
    processes nor restarts change what is drawn for them.
    """

    @abstractmethod
    def take(self, start: int, count: int) -> Tensor:
        """What is drawn for examples ``start`` to ``start + count − 1`` of the run: (count, …), on the CPU."""

    @abstractmethod
    def __call__(self, inputs: Tensor, drawn: Tensor) -> Tensor:
        """Inputs (B, …), as they are kept, changed by what was drawn for them, (B, …), on their device."""


class CropAndFlip(Augmentation):
    """A crop of the image's own size from the image in a frame of zeros, mirrored with probability ½.

    That of He et al. 2016, §4.2, for CIFAR: a frame of four pixels.

    Args:
        seed: Key of what is drawn, see `lnsgd.streams.CropStream`.
        padding: Width of the frame in pixels.
    """

    def __init__(self, seed: int, padding: int = 4) -> None:
        self.padding = padding
        self._stream = CropStream(2 * padding + 1, seed)

    def take(self, start: int, count: int) -> Tensor:
        """First row and column of the crop in the framed image, and whether it is mirrored: (count, 3), int64."""
        return self._stream.take(start, count)

    def __call__(self, inputs: Tensor, drawn: Tensor) -> Tensor:
        """Images (B, channels, H, W), cropped and mirrored."""
        return crop_and_flip(inputs, drawn, self.padding)


def crop_and_flip(images: Tensor, drawn: Tensor, padding: int) -> Tensor:
    """Crops of framed images, some of them mirrored.

    Pixel (i, j) of the result is pixel (r + i, c + j) of the image with a frame of ``padding`` zeros around it, or
    (r + i, c + W − 1 − j) where it is mirrored left to right.

    Args:
        images: Shape (B, channels, H, W), of any type.
        drawn: r, c and 0 or 1 (mirrored) of each image, (B, 3), int64; r and c are 0 to 2 · ``padding``.
        padding: Width of the frame.
    """
    _, channels, height, width = images.shape
    framed = F.pad(images, (padding, padding, padding, padding)).flatten(2)
    first_row, first_column, mirrored = drawn.unsqueeze(2).unbind(1)
    j = torch.arange(width, device=images.device)
    rows = first_row + torch.arange(height, device=images.device)
    columns = first_column + torch.where(mirrored > 0, width - 1 - j, j)
    places = rows.unsqueeze(2) * (width + 2 * padding) + columns.unsqueeze(1)
    # One gather over flat pixels is several times as fast on a CPU as indexing with rows and columns.
    return framed.gather(2, places.flatten(1).unsqueeze(1).expand(-1, channels, -1)).view(images.shape)
