"""Augmentation of training images, a batch at a time, on the device of the images."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from lnsgd.streams import CropStream


class Augmentation(ABC):
    """Interface of an augmentation: it draws random numbers for each example of a run, and changes inputs by them.

    Examples are counted from the first step of the run on, as for their order and label noise; so neither batches,
    processes nor restarts change what is drawn for them.
    """

    @abstractmethod
    def take(self, start: int, count: int) -> Tensor:
        """Draw random numbers (count, …) for examples ``start`` to ``start + count − 1`` of the run, on the CPU."""

    @abstractmethod
    def __call__(self, inputs: Tensor, drawn: Tensor) -> Tensor:
        """Change inputs (B, …), as they are stored, by the numbers drawn for them, (B, …), on their device."""


class CropAndFlip(Augmentation):
    """Random crop of the image's own size from the image in a frame of zeros, mirrored with probability ½.

    He et al. (2016, §4.2) use a frame of four pixels for CIFAR.

    Args:
        seed: Key of the crops, see `lnsgd.streams.CropStream`.
        padding: Width of the frame in pixels.
    """

    def __init__(self, seed: int, padding: int = 4) -> None:
        self.padding = padding
        self._stream = CropStream(2 * padding + 1, seed)

    def take(self, start: int, count: int) -> Tensor:
        """Draw first row and column of each crop in the framed image, and whether it is mirrored: (count, 3), int64."""
        return self._stream.take(start, count)

    def __call__(self, inputs: Tensor, drawn: Tensor) -> Tensor:
        """Crop and mirror images (B, channels, H, W)."""
        return crop_and_flip(inputs, drawn, self.padding)


def crop_and_flip(images: Tensor, drawn: Tensor, padding: int) -> Tensor:
    """Crop framed images, and mirror some of them.

    Pixel (i, j) of the result is pixel (r + i, c + j) of the image with a frame of ``padding`` zeros around it, or
    (r + i, c + W − 1 − j) if the image is mirrored left to right.

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
