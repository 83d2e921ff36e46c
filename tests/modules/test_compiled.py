"""The compiled forward pass of training: bad settings, copies, CUDA graphs."""

import copy
import pickle
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lnsgd.data import InMemory
from lnsgd.label_noise import UniformNoise
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.modules.compiled import compile_forward
from lnsgd.replicas import Replica, ReplicatedModule


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3))


def module_of(net: nn.Module, **options) -> Classifier:
    return Classifier(net, label_noise=UniformNoise(0.1), optimizer=partial(torch.optim.SGD, lr=0.1), **options)


def data() -> InMemory:
    return InMemory((torch.randn(10, 4), torch.arange(10) % 3), batch_size=5)


def fit(module: pl.LightningModule, numbers: InMemory | None = None, **options) -> None:
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, enable_checkpointing=False, **silent, **options)
    trainer.fit(module, datamodule=numbers or data())


@pytest.fixture
def eagerly(monkeypatch):
    """`torch.compile` without code generation: what is traced runs operation by operation."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode, dynamic: compile_(f, backend="eager", dynamic=dynamic))


@pytest.fixture
def with_cuda_graphs(monkeypatch):
    """`torch.compile` as with CUDA graphs: results lie in memory that the next call writes to."""
    calls: list[str] = []

    def compile_(forward, mode, dynamic):
        memory: dict[torch.Size, torch.Tensor] = {}

        def run(inputs):
            calls.append("run")
            outputs = forward(inputs)
            static = memory.setdefault(outputs.shape, torch.empty_like(outputs))
            static.detach().copy_(outputs)
            return _Static.apply(outputs, static)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: calls.append("mark"))
    return calls


class _Static(torch.autograd.Function):
    @staticmethod
    def forward(ctx, outputs, static):
        return static.detach()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_outputs_outlive_the_next_step_of_a_cuda_graph(with_cuda_graphs, mode):
    step = compile_forward(nn.Identity(), mode)
    first = step(torch.ones(2))
    step(torch.zeros(2))
    assert first.tolist() == [1, 1]
    assert with_cuda_graphs == ["mark", "run"] * 2


def test_accuracy_is_counted_on_the_outputs_of_each_step(with_cuda_graphs):
    start, numbers, seen = MLP([4, 8, 3]), data(), {}
    for mode in (None, "reduce-overhead"):
        module = module_of(copy.deepcopy(start), compile_mode=mode)
        fit(module, numbers)
        accuracy = module.trainer.callback_metrics["train/accuracy"].item()
        seen[mode] = accuracy, [p.tolist() for p in module.parameters()]
    assert with_cuda_graphs == ["mark", "run"] * 2
    assert seen[None] == seen["reduce-overhead"]


def test_many_networks_in_one_program(eagerly):
    counter = torch._dynamo.utils.counters["stats"]
    for width in range(1, 11):  # more than torch keeps graphs of one function
        before = counter["unique_graphs"]
        fit(module_of(MLP([4, width, 3]), compile_mode="default"))
        assert counter["unique_graphs"] == before + 1


def test_copies_compile_anew(eagerly):
    module = module_of(MLP([4, 2, 3]), compile_mode="default")
    fit(module)
    assert module._training_forward.is_compiled
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not again._training_forward.is_compiled
        assert all(torch.equal(p, q) for p, q in zip(again.parameters(), module.parameters(), strict=True))
        fit(again)
        assert again._training_forward.is_compiled
        assert not any(torch.equal(p, q) for p, q in zip(again.parameters(), module.parameters(), strict=True))


def test_a_missing_compiler_is_reported_in_one_line():
    import torch._inductor.config as inductor

    no_compiler = inductor.patch({"cpp.cxx": (None, "no-such-compiler")})
    message = r"^compile_mode = default: no C\+\+ compiler; install g\+\+, or leave compile_mode out$"
    with no_compiler, pytest.raises(ValueError, match=message):
        fit(module_of(MLP([4, 3]), compile_mode="default"))


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_cuda_graphs_do_not_accumulate_gradients(mode):
    with pytest.raises(ValueError, match=f"^trainer.accumulate_grad_batches = 2 with compile_mode = {mode}"):
        fit(module_of(MLP([4, 3]), compile_mode=mode), accumulate_grad_batches=2)


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"^compile_mode = 'fast'; choose one of default, reduce-overhead"):
        module_of(MLP([4, 3]), compile_mode="fast")


def test_channels_last_needs_convolutions():
    with pytest.raises(ValueError, match=r"^channels_last = True: MLP has no 4-d weights"):
        module_of(MLP([4, 3]), channels_last=True)


@pytest.mark.parametrize("option", [{"channels_last": True}, {"compile_mode": "default"}], ids=str)
def test_replicas_refuse_channels_last_and_compile_mode(option):
    name = next(iter(option))
    with pytest.raises(
        ValueError, match=f"^{name} = .*: replicas are compiled by an engine of their own; leave {name}"
    ):
        ReplicatedModule(module_of(convolution(), **option), [Replica(0)])


def test_hooks_of_the_module_run_in_training(tmp_path):
    """As for any LightningModule whose step calls ``self(inputs)``."""
    calls = []
    module = module_of(MLP([4, 5, 3]))
    module.register_forward_hook(lambda *_: calls.append(1))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data())
    assert len(calls) == 3
