"""The networks of all replicas as one module."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lnsgd import rng


class StackedNetwork(nn.Module):
    """R networks of one structure whose parameters are stacked: each parameter has a leading replica dimension, (R, …).

    A parameter has the name that it has in the network, preceded by ``net.``.

    Args:
        net: The network; its weights are not used. Its ``reset_parameters()`` draws the weights of a replica.
        seeds: Seed of each replica. The replica's weights are those of a network that is built inside
            ``rng.forked(seed, "init")``.

    Raises:
        ValueError: a network without ``reset_parameters``.
    """

    def __init__(self, net: nn.Module, seeds: Sequence[int]) -> None:
        super().__init__()
        if not callable(getattr(net, "reset_parameters", None)):
            raise ValueError(
                f"{type(net).__name__} has no reset_parameters(); replicas need it to draw the initial weights of each"
            )
        self._structure = [copy.deepcopy(net)]  # in a list it is not a submodule: its parameters are scratch
        self.num_replicas = len(seeds)
        self.net = copy.deepcopy(net)
        drawn = [self._draw(seed) for seed in seeds]
        for name, parameter in net.named_parameters():
            module, _, attribute = name.rpartition(".")
            stacked = torch.stack([weights[name] for weights in drawn])
            setattr(self.net.get_submodule(module), attribute, nn.Parameter(stacked, parameter.requires_grad))

    @property
    def structure(self) -> nn.Module:
        """A network of the structure of each replica, with weights that mean nothing."""
        return self._structure[0].to(next(self.net.parameters()))

    def _draw(self, seed: int) -> dict[str, Tensor]:
        reset: Callable[[], None] = self.structure.reset_parameters  # type: ignore[assignment]
        with rng.forked(seed, "init"):
            reset()
        return {name: p.detach().clone() for name, p in self.structure.named_parameters()}

    def stacked_parameters(self) -> dict[str, nn.Parameter]:
        """Return the stacked parameters by their names in the network."""
        return dict(self.net.named_parameters())

    def load_into(self, net: nn.Module, replica: int) -> None:
        """Copy the weights of a replica into a network of the same structure."""
        stacked = self.stacked_parameters()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter.copy_(stacked[name][replica])

    def replica(self, index: int) -> nn.Module:
        """Return a new network with the weights of a replica."""
        net = copy.deepcopy(self.structure)
        self.load_into(net, index)
        return net

    def forward(self, inputs: Tensor, replicas: Tensor) -> Tensor:
        """Compute the outputs (S, B, O) of S replicas on the same inputs (B, …).

        Args:
            inputs: The inputs.
            replicas: Indices of the replicas, (S,), int64.
        """
        chosen = {name: p.detach()[replicas] for name, p in self.stacked_parameters().items()}
        buffers = dict(self.net.named_buffers())
        return vmap(lambda weights: functional_call(self.structure, (weights, buffers), (inputs,)))(chosen)
