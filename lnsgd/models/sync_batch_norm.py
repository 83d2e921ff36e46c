"""Batch normalization over the batch of all processes, on CPUs as well."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lnsgd import compat

_BatchNorm: Any = compat.batch_norm_base()


class SyncBatchNorm(_BatchNorm):
    """Base of the layers that normalize by mean and variance of the global batch (Ioffe and Szegedy, 2015, Alg. 1).

    In training y = w · (x − μ) / √(σ² + ε) + b, with mean μ and biased variance σ² of each channel over the examples
    and positions of all processes together, whatever their shares; a share may be empty. Running statistics take μ and
    the unbiased variance, as `torch.nn.BatchNorm2d` does with a batch in one process. The gradient by x includes that
    through μ and σ² of all processes; the gradients by w and b are this process's part of the sum.

    In training every process of the default group must call the layer, forward and backward. In eval mode, and in a
    single process, this is the plain layer, and nothing is communicated.

    `torch.nn.SyncBatchNorm` does this on GPUs and refuses tensors of the CPU. In both, the gradient cannot be
    differentiated again in training.

    `synchronize_batch_norm` makes these layers from plain layers; the names in the state dict do not change.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize the input, shape (B, channels, …).

        Raises:
            ValueError: wrong shape, or in training fewer than two values per channel in the global batch.
        """
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        compat.check_batch_norm_input(self, input)
        mean, var, count = _global_statistics(input.detach())
        if count < 2:
            raise ValueError(f"expected more than 1 value per channel when training, all processes got {count}")
        self._track(mean, var * (count / (count - 1)))
        kind = input.dtype if self.weight is None else self.weight.dtype
        return _Normalization.apply(input, self.weight, self.bias, mean.to(kind), var.to(kind), count, self.eps)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        if not self.track_running_stats or self.num_batches_tracked is None:
            return
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        new = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, var)):
            running.mul_(1 - new).add_(value.to(running.dtype), alpha=new)


class SyncBatchNorm1d(SyncBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over all processes, see `SyncBatchNorm`."""


class SyncBatchNorm2d(SyncBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over all processes, see `SyncBatchNorm`."""


class SyncBatchNorm3d(SyncBatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` over all processes, see `SyncBatchNorm`."""


_SYNCHRONIZED: dict[type[nn.Module], type[SyncBatchNorm]] = {
    nn.BatchNorm1d: SyncBatchNorm1d,
    nn.BatchNorm2d: SyncBatchNorm2d,
    nn.BatchNorm3d: SyncBatchNorm3d,
}
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {synchronized: plain for plain, synchronized in _SYNCHRONIZED.items()}


def synchronize_batch_norm(model: nn.Module) -> None:
    """Make all batch normalization layers of a model normalize over the batch of all processes, in place.

    Only the class of the layers changes: parameters, buffers, hooks, names and mode stay as they are.

    Args:
        model: Any module.

    Raises:
        ValueError: a layer is of another class of batch normalization; then nothing is changed.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and type(module) not in (*_SYNCHRONIZED, *_PLAIN):
            raise ValueError(
                f"sync_batchnorm: {name or 'the model'} is a {type(module).__name__}; on CPUs only "
                "torch.nn.BatchNorm1d, 2d and 3d are synchronized: use one of these, or sync_batchnorm = false"
            )
    for module in model.modules():
        module.__class__ = _SYNCHRONIZED.get(type(module), type(module))


def plain_batch_norm(model: nn.Module) -> None:
    """Undo `synchronize_batch_norm`, in place."""
    for module in model.modules():
        module.__class__ = _PLAIN.get(type(module), type(module))


@torch.no_grad()
def _global_statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Compute mean and biased variance of each channel over all processes, float64, and the number of values.

    Each process computes them for its own share, around its own mean, and they are merged (Chan et al., 1979):
    μ = Σ nₖμₖ / n and σ² = Σ nₖ(σₖ² + (μₖ − μ)²) / n. Unlike the difference E[x²] − μ² this does not lose digits if the
    mean is large. All processes add in the same order, so that they get the same bits.
    """
    channels = x.shape[1]
    mine = x.new_zeros(1 + 2 * channels, dtype=torch.float64)
    if x.numel():
        exact = x if x.dtype in (torch.float32, torch.float64) else x.float()
        mine[0] = x.numel() // channels
        # Four to twenty times as fast as torch.var_mean on a CPU, and summed in float64.
        mine[1:] = torch.cat(torch.batch_norm_update_stats(exact, None, None, 0.0))
    shares = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(shares, mine)
    counts, means, variances = torch.stack(shares).split([1, channels, channels], 1)
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    var = (counts * (variances + (means - mean).square())).sum(0) / count
    return mean, var, int(count.item())


class _Normalization(torch.autograd.Function):
    """The function y = w · x̂ + b, x̂ = (x − μ) / √(σ² + ε), differentiated through μ and σ² of all processes.

    ∂L/∂x = w / √(σ² + ε) · (dy − Σdy / n − x̂ · Σ(dy · x̂) / n), both sums over the n values of a channel on all
    processes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, n: int, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.n, ctx.eps = n, eps
        return F.batch_norm(x, mean, var, weight, bias, eps=eps) if x.numel() else torch.empty_like(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        dx, sums = torch.zeros_like(x), mean.new_zeros(2, len(mean))  # of a process without examples
        if x.numel():
            # With μ and σ² fixed: w / √(σ² + ε) · dy, and this process's Σ(dy · x̂) and Σdy.
            dx, *own = torch.ops.aten.native_batch_norm_backward(
                dy, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
            )
            sums = torch.stack(own)
        weight_gradient, bias_gradient = sums.clone()
        if ctx.needs_input_grad[0]:
            dist.all_reduce(sums)
            if x.numel():
                scale = (var + ctx.eps).rsqrt() if weight is None else weight * (var + ctx.eps).rsqrt()
                by_hat, by_one = -scale * sums / ctx.n
                dx = dx + F.batch_norm(x, mean, var, by_hat, by_one, eps=ctx.eps)
        found = (dx, weight_gradient, bias_gradient)
        needed = [g if need else None for g, need in zip(found, ctx.needs_input_grad)]
        return *needed, None, None, None, None
