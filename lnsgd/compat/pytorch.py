"""Private and version-dependent interfaces of PyTorch."""

import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any, NamedTuple

TORCH_WRAPPER_NAMES = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Names that torch.compile, activation checkpointing and FSDP of torch insert into the names of tensors."""


def check_cxx_compiler(remedy: str) -> None:
    """Raise ValueError if TorchInductor finds no C++ compiler.

    Tried with torch 2.15.

    Args:
        remedy: What to do instead of installing one.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ValueError(f"no C++ compiler; install g++, or {remedy}") from None


def compile_with_inductor(step: Callable[..., None], tensors: Sequence[Any], remedy: str) -> Callable[..., object]:
    """Compile a function of tensors into one function for their shapes, without the guards of `torch.compile`.

    TorchInductor keeps the result on disk: another process that compiles the same function gets it from there.
    Tried with torch 2.15.

    Args:
        step: A function that changes tensors in place.
        tensors: Its arguments.
        remedy: What to do instead of installing a C++ compiler, see `check_cxx_compiler`.
    """
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    if tensors[0].device.type == "cpu":
        check_cxx_compiler(remedy)
    graph = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    # `torch._inductor.compile` outside of a tracing context does not use the cache on disk.
    return torch._inductor.standalone_compile(graph, [*tensors], dynamic_shapes="from_example_inputs")


def compiled_original(module: Any) -> Any | None:
    """Return the module that `torch.compile` has wrapped, ``None`` for any other module.

    Tried with torch 2.15.

    Args:
        module: Any module.
    """
    return dict(module._modules.items()).get("_orig_mod")  # the table of a TorchScript module has no `get`


def has_compiled_parts(module: Any) -> bool:
    """Return whether `torch.compile` or ``Module.compile`` was applied to a module or to one within it.

    Tried with torch 2.15.

    Args:
        module: Any module.
    """
    return any("_orig_mod" in part._modules or part._compiled_call_impl is not None for part in module.modules())


def forget_compiled_call(module: Any) -> None:
    """Undo ``module.compile()``, which wraps nothing around the module.

    Tried with torch 2.15.

    Args:
        module: Any module.
    """
    module._compiled_call_impl = None


class _EagerStance:
    """The stance of `torch.compile` that computes everything by PyTorch's own operations.

    It is one for the process. The first thread that takes it sets it, and the last one that leaves it sets the former
    one again; if each thread did so itself, one could set the stance of another again for good.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._stance: AbstractContextManager[Any] = nullcontext()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the stance within this context."""
        import torch

        with self._lock:
            self._users += 1
            if self._users == 1:
                self._stance = torch.compiler.set_stance("force_eager")
                self._stance.__enter__()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._stance.__exit__(None, None, None)


_EAGER_STANCE = _EagerStance()


def without_compiled_code() -> AbstractContextManager[Any]:
    """Return a context in which everything that `torch.compile` has compiled is computed by PyTorch's own operations.

    Nothing has been compiled in a process that has not imported TorchDynamo, whose import takes seconds. Other threads
    compute without compiled code meanwhile, too. Tried with torch 2.15.
    """
    return _EAGER_STANCE.taken() if "torch._dynamo" in sys.modules else nullcontext()


def plain_name(name: str) -> str:
    """Return the name of a module or tensor without the names of the wrappers that torch puts around modules.

    Tried with torch 2.15.

    Args:
        name: Name with dots, such as ``net._orig_mod.0.weight``.
    """
    return ".".join(part for part in name.split(".") if part not in TORCH_WRAPPER_NAMES)


def registered_tensors(module: Any) -> tuple[MutableMapping[str, Any], MutableMapping[str, Any]]:
    """Return the parameters and the buffers that a module itself has, by name, to be read or replaced.

    Tried with torch 2.15.

    Args:
        module: Any module.
    """
    if is_torchscript(module):
        return _ScriptTensors(module._parameters), _ScriptTensors(module._buffers)
    return module._parameters, module._buffers


class _ScriptTensors(MutableMapping[str, Any]):
    """The parameters or buffers of a TorchScript module, whose own table is not a mapping."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Any:
        return self._table[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._table[name] = value

    def __delitem__(self, name: str) -> None:
        del self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.keys())

    def __len__(self) -> int:
        return len(self._table)


def is_torchscript(module: Any) -> bool:
    """Return whether a module is TorchScript, of `torch.jit.script` or `torch.jit.trace`: it does not take hooks.

    Tried with torch 2.15.

    Args:
        module: Any module.
    """
    import torch

    return isinstance(module, torch.jit.ScriptModule)


def is_of_transform(tensor: Any) -> bool:
    """Return whether a tensor stands for others within a transform such as `torch.func.vmap`.

    Tried with torch 2.15.

    Args:
        tensor: Any tensor.
    """
    import torch

    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def child_modules(module: Any) -> MutableMapping[str, Any]:
    """Return the children of a module by name, also shared and missing (``None``) ones, to be read or replaced.

    Tried with torch 2.15.

    Args:
        module: Any module.
    """
    return module._modules


def batch_norm_base() -> Any:
    """Return the class that all batch normalizations of ``torch.nn`` derive from.

    Tried with torch 2.15.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    return _BatchNorm


def check_batch_norm_input(layer: Any, inputs: Any) -> None:
    """Raise ValueError if inputs do not have the number of dimensions of a batch normalization.

    Tried with torch 2.15.

    Args:
        layer: The batch normalization.
        inputs: Its inputs.
    """
    layer._check_input_dim(inputs)


def dropout_rate(module: Any) -> float:
    """Return the probability with which a module of ``torch.nn`` drops units, 0 for modules without dropout.

    Recurrent layers and attention drop units within. Tried with torch 2.15.

    Args:
        module: Any module.
    """
    from torch.nn.modules.dropout import _DropoutNd

    rate = module.p if isinstance(module, _DropoutNd) else getattr(module, "dropout", 0)
    return rate if isinstance(rate, (int, float)) else 0.0


def two_sided_padding(layer: Any) -> Sequence[int]:
    """Return the padding of a convolution as `torch.nn.functional.pad` takes it.

    Tried with torch 2.15.

    Args:
        layer: A convolution of ``torch.nn``.
    """
    return layer._reversed_padding_repeated_twice


def tensor_version(tensor: Any) -> int:
    """Return a number that grows whenever a tensor is changed in place.

    Tried with torch 2.15.

    Args:
        tensor: Any tensor.
    """
    return tensor._version


def weight_norm_function() -> Any:
    """Return the function of torch by which weight normalization computes a weight from its direction and length.

    Tried with torch 2.15.
    """
    import torch

    return torch._weight_norm


def set_worker_dataset(dataset: Any) -> None:
    """Make a data set the one that ``torch.utils.data.get_worker_info().dataset`` gives in this worker.

    Tried with torch 2.15.

    Args:
        dataset: The data set.
    """
    from torch.utils.data import get_worker_info

    object.__setattr__(get_worker_info(), "dataset", dataset)  # WorkerInfo is a frozen dataclass


def saved_training_mode(node: Any) -> bool:
    """Return whether a node of the autograd graph is a normalization in training mode; true if that is not known.

    Tried with torch 2.15.

    Args:
        node: Node of a normalization.
    """
    return getattr(node, "_saved_training", True)


class RecomputedTensor(NamedTuple):
    """A tensor that a module makes from parameters of other names.

    Attributes:
        sources: Names in the module of these parameters.
        compute: Function that computes the tensor from them as they are now.
    """

    sources: tuple[str, ...]
    compute: Callable[[], Any]


def recomputed_tensors(module: Any) -> dict[str, RecomputedTensor]:
    """Return the tensors of a module, not of its children, that it makes from parameters of other names.

    These are made by ``torch.nn.utils.parametrize``, ``torch.nn.utils.prune``, and the older ``weight_norm`` and
    ``spectral_norm`` of ``torch.nn.utils``. Tried with torch 2.15.

    Args:
        module: Any module.
    """
    from functools import partial

    from torch.nn.utils import parametrize
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    found = {}
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            name = hook._tensor_name
            found[name] = RecomputedTensor((f"{name}_orig",), partial(hook.apply_mask, module))
        elif isinstance(hook, WeightNorm):
            found[hook.name] = RecomputedTensor(
                (f"{hook.name}_g", f"{hook.name}_v"), partial(hook.compute_weight, module)
            )
        elif isinstance(hook, SpectralNorm):
            compute = partial(hook.compute_weight, module, do_power_iteration=False)
            found[hook.name] = RecomputedTensor((f"{hook.name}_orig",), compute)
    if parametrize.is_parametrized(module):
        for name, steps in module.parametrizations.items():
            sources = tuple(f"parametrizations.{name}.{source}" for source, _ in steps.named_parameters())
            found[name] = RecomputedTensor(sources, partial(getattr, module, name))
    return found


def process_group_store() -> Any:
    """Return the store of the default process group.

    Tried with torch 2.15.
    """
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def sharding(module: Any) -> str | None:
    """Return the kind of the weights of a module that are divided among processes, or ``None`` if all are whole.

    Tried with torch 2.15. The classes are recognized by name, because importing them takes long.

    Args:
        module: A ``torch.nn.Module``.
    """
    for part in module.modules():
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(part).__mro__):
            return "FullyShardedDataParallel"
    for parameter in module.parameters():
        if type(parameter).__name__ == "DTensor":
            return "DTensor"
        if hasattr(parameter, "ds_status"):
            return "DeepSpeed ZeRO"
    return None
