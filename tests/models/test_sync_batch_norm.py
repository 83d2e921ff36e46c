"""Synchronized batch normalization of two processes is that of the whole batch in one."""

import copy
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import ProcessRaisedException, start_processes

from lnsgd.models import ResNet20
from lnsgd.models.sync_batch_norm import SyncBatchNorm, plain_batch_norm, synchronize_batch_norm

# One sums over the whole batch, the other over its parts.
SUMMATION = {"rtol": 1e-10, "atol": 1e-11}

SHARES = {
    "even": lambda batch, rank: batch[:6][rank::2],
    "uneven": lambda batch, rank: batch[rank::2],
    "one-of-seven": lambda batch, rank: batch[:1] if rank else batch[1:],
    "empty": lambda batch, rank: batch[:0] if rank else batch,
    "one-example": lambda batch, rank: batch[:0] if rank else batch[:1],
}

SETTINGS = {
    "no-momentum": {"momentum": None},
    "momentum": {"momentum": 0.7, "eps": 0.1},
    "not-affine": {"affine": False},
    "untracked": {"track_running_stats": False},
}


def in_two_processes(work, *args) -> None:
    """Call ``work(rank, *args)`` in two processes of one group."""
    torch.testing.assert_close(0.0, 0.0)  # its first call takes seconds of imports; here, and not in every child
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    start_processes(_in_group, (work, store.port, args), nprocs=2, start_method="fork")


def _in_group(rank, work, port, args) -> None:
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    # Who waits for a process that does not come has failed.
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=20))
    work(rank, *args)
    dist.barrier()
    dist.destroy_process_group()


def layer_and_copy(plain: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return a plain layer with different weights, and its synchronized copy."""
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    ours = copy.deepcopy(plain)
    synchronize_batch_norm(ours)
    return plain, ours


def whole(share, batch: torch.Tensor) -> torch.Tensor:
    return torch.cat([share(batch, rank) for rank in (0, 1)])


def as_the_whole_batch(rank: int, plain: nn.Module, batch: torch.Tensor, share, tolerance=SUMMATION) -> None:
    plain, ours = layer_and_copy(plain)
    slopes = torch.randn_like(batch)
    for _ in range(3):  # momentum
        x = whole(share, batch).requires_grad_()
        mine = share(batch, rank).clone().requires_grad_()
        plain.zero_grad()
        ours.zero_grad()
        y, y_mine = plain(x), ours(mine)
        (y.sin() * whole(share, slopes)).sum().backward()
        (y_mine.sin() * share(slopes, rank)).sum().backward()
        # Of the first process come first.
        start = 0 if rank == 0 else len(x) - len(mine)
        torch.testing.assert_close(y_mine, y[start : start + len(mine)], **tolerance)
        torch.testing.assert_close(mine.grad, x.grad[start : start + len(mine)], **tolerance)
        for parameter, expected in zip(ours.parameters(), plain.parameters(), strict=True):
            dist.all_reduce(parameter.grad)
            torch.testing.assert_close(parameter.grad, expected.grad, **tolerance)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], **tolerance)


@pytest.mark.parametrize(
    "share, setting",
    [
        *((share, "plain") for share in SHARES),
        *((share, setting) for setting in SETTINGS for share in ("uneven", "empty")),
    ],
)
def test_outputs_gradients_and_running_statistics(share, setting):
    torch.manual_seed(0)
    batch = 3 * torch.randn(7, 3, 4, 5, dtype=torch.float64) + torch.tensor([[[100.0]], [[0.0]], [[-5.0]]])
    plain = nn.BatchNorm2d(3, **SETTINGS.get(setting, {}), dtype=torch.float64)
    in_two_processes(as_the_whole_batch, plain, batch, SHARES[share])


INPUTS = {
    "vectors": (nn.BatchNorm1d, (7, 3)),
    "sequences": (nn.BatchNorm1d, (7, 3, 4)),
    "volumes": (nn.BatchNorm3d, (7, 3, 2, 3, 4)),
}


@pytest.mark.parametrize("kind, shape", INPUTS.values(), ids=INPUTS)
def test_other_shapes(kind, shape):
    torch.manual_seed(0)
    batch = torch.randn(shape, dtype=torch.float64)
    in_two_processes(as_the_whole_batch, kind(3, dtype=torch.float64), batch, SHARES["uneven"])


def test_channels_last():
    torch.manual_seed(0)
    batch = torch.randn(7, 3, 4, 5, dtype=torch.float64).to(memory_format=torch.channels_last)
    in_two_processes(as_the_whole_batch, nn.BatchNorm2d(3, dtype=torch.float64), batch, SHARES["uneven"])


def far_from_zero(rank: int, batch: torch.Tensor) -> None:
    ours = nn.BatchNorm2d(3, momentum=1.0)
    synchronize_batch_norm(ours)
    ours(SHARES["uneven"](batch, rank).float())
    torch.testing.assert_close(ours.running_var.double(), batch.var((0, 2, 3)), rtol=1e-5, atol=0)


def test_single_precision_keeps_a_small_variance_around_a_large_mean():
    torch.manual_seed(0)
    batch = (torch.randn(7, 3, 4, 5) + 1000).double()  # E[x²] − μ² has no correct digit in float32
    in_two_processes(far_from_zero, batch)


def half_precision(rank: int, batch: torch.Tensor) -> None:
    plain, ours = layer_and_copy(nn.BatchNorm2d(3))
    x, mine = batch.clone().requires_grad_(), batch[rank::2].clone().requires_grad_()
    y, y_mine = plain(x), ours(mine)
    y.square().sum().backward()
    y_mine.square().sum().backward()
    assert y_mine.dtype == mine.grad.dtype == torch.bfloat16
    torch.testing.assert_close(y_mine, y[rank::2], rtol=0.02, atol=0.02)  # 8 bits
    torch.testing.assert_close(ours.running_var, plain.running_var, rtol=1e-5, atol=0)


def test_half_precision_inputs_and_single_precision_statistics():
    torch.manual_seed(0)
    in_two_processes(half_precision, torch.randn(8, 3, 4, 5).bfloat16())


def alone_in_eval_mode(rank: int, batch: torch.Tensor) -> None:
    plain, ours = layer_and_copy(nn.BatchNorm2d(3))
    if rank == 0:  # it would wait for the other one
        assert torch.equal(ours.eval()(batch), plain.eval()(batch))


def test_eval_mode_does_not_communicate():
    in_two_processes(alone_in_eval_mode, torch.randn(4, 3, 2, 2))


def test_one_process_has_the_plain_layer():
    batch = torch.randn(4, 3, 2, 2)
    plain, ours = layer_and_copy(nn.BatchNorm2d(3))
    assert torch.equal(ours(batch), plain(batch))
    assert torch.equal(ours.running_var, plain.running_var)


def too_few_values(rank: int) -> None:
    ours = nn.BatchNorm1d(3)
    synchronize_batch_norm(ours)
    ours(torch.zeros(1 - rank, 3))


def test_one_value_in_all_processes_is_refused():
    with pytest.raises(
        ProcessRaisedException, match="more than 1 value per channel when training, all processes got 1"
    ):
        in_two_processes(too_few_values)


def test_a_network_keeps_its_layers_when_they_change_class():
    net = ResNet20(width=4)
    layers, kinds = list(net.modules()), [type(layer) for layer in net.modules()]
    names, parameters = list(net.state_dict()), list(net.parameters())
    synchronize_batch_norm(net)
    assert sum(isinstance(layer, SyncBatchNorm) for layer in net.modules()) == kinds.count(nn.BatchNorm2d) == 19
    assert all(now is then for now, then in zip(net.modules(), layers, strict=True))
    assert list(net.state_dict()) == names
    plain_batch_norm(net)
    assert [type(layer) for layer in net.modules()] == kinds
    assert all(now is then for now, then in zip(net.parameters(), parameters, strict=True))


class OwnBatchNorm(nn.BatchNorm2d):
    """A batch normalization of another class."""


def test_a_layer_of_another_class_is_refused():
    net = nn.Sequential(nn.BatchNorm2d(3), OwnBatchNorm(3))
    with pytest.raises(ValueError, match=r"sync_batchnorm: 1 is a OwnBatchNorm.*torch\.nn\.BatchNorm1d, 2d and 3d"):
        synchronize_batch_norm(net)
    assert type(net[0]) is nn.BatchNorm2d
