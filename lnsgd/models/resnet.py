"""Residual networks for images of 32 × 32 pixels."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PaddedShortcut(nn.Module):
    """A shortcut without parameters to a smaller and wider map (He et al., 2016, option A of sections 3.3 and 4.2).

    It keeps every ``stride``-th row and column, from the first on, and adds channels of zeros. He et al. do not say
    where; here half of them go before the old channels and half behind, as in Idelbayev's script (if their number is
    odd, the extra one goes behind).

    Args:
        new_channels: Number of channels that are added.
        stride: Distance of the rows and of the columns that are kept.
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.before = new_channels // 2
        self.behind = new_channels - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (B, C, H, W) to (B, C + new_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.behind))

    def extra_repr(self) -> str:
        """Return the arguments that ``print(module)`` shows."""
        return f"new_channels={self.before + self.behind}, stride={self.stride}"


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut: relu2(bn2(conv2(relu1(bn1(conv1(x))))) + shortcut(x)).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output, at least as many.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        same = stride == 1 and in_channels == channels
        self.conv1 = _convolution(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = _convolution(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if same else PaddedShortcut(channels - in_channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (B, in_channels, H, W) to (B, channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        inner = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))


class CIFARResNet(nn.Module):
    """Base of the ResNets for CIFAR (He et al., 2016, "Deep Residual Learning for Image Recognition", section 4.2).

    A 3 × 3 convolution, three stages ``layer1``, ``layer2``, ``layer3`` of ``blocks`` residual blocks each, the mean
    over all pixels, and a linear layer ``linear``: 6 · blocks + 2 layers. The stages have ``width``, 2 · ``width``
    and 4 · ``width`` channels, the second and the third halve height and width.

    Every activation site is an ``nn.ReLU`` of its own: ``relu``, then ``layer1.0.relu1``, ``layer1.0.relu2``, … up
    to ``layer3.{blocks − 1}.relu2``, 6 · blocks + 1 in all, in the order of ``named_modules()`` and of the forward
    pass. For 32 × 32 images and the default width the last has 64 × 8 × 8 = 4,096 units. The names of parameters
    are those of Idelbayev's script (github.com/akamaster/pytorch_resnet_cifar10).

    Args:
        num_classes: Number of outputs C.
        channels: Channels of the images.
        width: Channels of the first stage.

    Raises:
        ValueError: one of them is below 1.
    """

    blocks: ClassVar[int]

    def __init__(self, num_classes: int = 10, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("channels", channels), ("width", width)):
            if value < 1:
                raise ValueError(f"{type(self).__name__}: {name} = {value}; it must be at least 1")
        self.conv1 = _convolution(channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(width, width, 1)
        self.layer2 = self._stage(width, 2 * width, 2)
        self.layer3 = self._stage(2 * width, 4 * width, 2)
        self.linear = nn.utils.skip_init(nn.Linear, 4 * width, num_classes)
        self.reset_parameters()

    def _stage(self, in_channels: int, channels: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(self.blocks - 1)))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, layer by layer from the input on, as Idelbayev's script does.

        Weights of convolutions and of the linear layer are N(0, 2/fan_in), where fan_in is 9 × the input channels or
        the number of inputs. The linear layer's bias is U[−1/√fan_in, 1/√fan_in], PyTorch's default. Batch
        normalization starts with scale 1, shift 0 and new running statistics.

        Args:
            generator: Source of randomness; by default torch's global generator.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        bound = self.linear.in_features**-0.5
        nn.init.uniform_(self.linear.bias, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs (B, C) of images (B, channels, H, W).

        Raises:
            ValueError: inputs that are not images with that many channels.
        """
        if x.dim() != 4 or x.shape[1] != self.conv1.in_channels:
            raise ValueError(
                f"{type(self).__name__}: inputs have shape {tuple(x.shape)}, but it takes images "
                f"(batch, {self.conv1.in_channels}, height, width); set its channels to those of the images"
            )
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class ResNet20(CIFARResNet):
    """ResNet of 20 layers; 269,722 parameters and 19 activation sites. Arguments: see `CIFARResNet`."""

    blocks = 3


class ResNet32(CIFARResNet):
    """ResNet of 32 layers; 464,154 parameters and 31 activation sites. Arguments: see `CIFARResNet`."""

    blocks = 5


class ResNet44(CIFARResNet):
    """ResNet of 44 layers; 658,586 parameters and 43 activation sites. Arguments: see `CIFARResNet`."""

    blocks = 7


class ResNet56(CIFARResNet):
    """ResNet of 56 layers; 853,018 parameters and 55 activation sites. Arguments: see `CIFARResNet`."""

    blocks = 9


def _convolution(in_channels: int, channels: int, stride: int) -> nn.Conv2d:
    layer = nn.utils.skip_init(nn.Conv2d, in_channels, channels, 3, stride=stride, padding=1, bias=False)
    assert isinstance(layer, nn.Conv2d)
    return layer
