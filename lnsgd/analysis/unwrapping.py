"""Networks without what is wrapped around them to run them faster or on several devices."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrapped(module: nn.Module) -> nn.Module:
    """A module that calls what it is made of itself: not compiled, not spread over devices, at any depth.

    A compiled module takes no second derivatives and ignores hooks that are added later; the numbers are the same.

    Args:
        module: Any; modules within that are wrapped are replaced in place.
    """
    if isinstance(inner := module._modules.get("_orig_mod"), nn.Module):  # as torch.compile holds what it compiled
        return unwrapped(inner)
    if isinstance(module, DataParallel | DistributedDataParallel):
        return unwrapped(module.module)
    for name, child in module._modules.items():
        if child is not None:
            module._modules[name] = unwrapped(child)
    module._compiled_call_impl = None  # of `module.compile()`, which wraps nothing around it
    return module
