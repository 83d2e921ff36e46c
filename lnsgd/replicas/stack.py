"""R networks of one structure as one module."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lnsgd import rng


class Stack(nn.Module):
    """R networks whose parameters are stacked: each has a leading replica dimension, (R, …).

    Its parameters are named as the network's own, after ``net.``.

    Args:
        net: The network; its weights are not used. Its ``reset_parameters()`` draws a replica's weights.
        seeds: Seed of each replica. Its weights are those of a network that is built inside
            ``rng.forked(seed, "init")``.

    Raises:
        ValueError: a network without ``reset_parameters``.
    """

    def __init__(self, net: nn.Module, seeds: Sequence[int]) -> None:
        super().__init__()
        if not callable(getattr(net, "reset_parameters", None)):
            raise ValueError(
                f"{type(net).__name__} has no reset_parameters(); replicas need it to draw each one's initial weights"
            )
        self._skeleton = [copy.deepcopy(net)]  # in a list it is not a submodule: its parameters are scratch
        self.num_replicas = len(seeds)
        self.net = copy.deepcopy(net)
        drawn = [self._draw(seed) for seed in seeds]
        for name, parameter in net.named_parameters():
            module, _, attribute = name.rpartition(".")
            stacked = torch.stack([weights[name] for weights in drawn])
            setattr(self.net.get_submodule(module), attribute, nn.Parameter(stacked, parameter.requires_grad))

    @property
    def skeleton(self) -> nn.Module:
        """A network of the same structure, with weights that mean nothing."""
        return self._skeleton[0].to(next(self.net.parameters()))

    def _draw(self, seed: int) -> dict[str, Tensor]:
        reset: Callable[[], None] = self.skeleton.reset_parameters  # type: ignore[assignment]
        with rng.forked(seed, "init"):
            reset()
        return {name: p.detach().clone() for name, p in self.skeleton.named_parameters()}

    def stacked_parameters(self) -> dict[str, nn.Parameter]:
        """The stacked parameters by the network's own names."""
        return dict(self.net.named_parameters())

    def load_into(self, net: nn.Module, replica: int) -> None:
        """Copies a replica's weights into a network of the same structure."""
        stacked = self.stacked_parameters()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter.copy_(stacked[name][replica])

    def replica(self, index: int) -> nn.Module:
        """A network of its own with a replica's weights."""
        net = copy.deepcopy(self.skeleton)
        self.load_into(net, index)
        return net

    def forward(self, inputs: Tensor, replicas: Tensor) -> Tensor:
        """Outputs (S, B, O) of the S chosen replicas (S,), int64, all on the same inputs (B, …)."""
        chosen = {name: p.detach()[replicas] for name, p in self.stacked_parameters().items()}
        buffers = dict(self.net.named_buffers())
        return vmap(lambda weights: functional_call(self.skeleton, (weights, buffers), (inputs,)))(chosen)
