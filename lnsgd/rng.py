"""Random generators from keys: everything random in lnsgd comes from (seed, purpose, counters).

A key names one stream. Two different keys give independent streams; one key gives the same stream on every process and
after every restart, so that nothing has to be saved to resume a run, and no result depends on the number of processes.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from operator import index
from typing import Literal, get_args

import numpy as np
import torch

Purpose = Literal["init", "data", "order", "noise", "augmentation", "probes", "subset", "corruption", "dropout"]

_PURPOSES = get_args(Purpose)

# State of a fresh CPU generator: a 24-byte header, 624 words of 32 bits in 64-bit slots, a trailer.
_MT_WORDS = 624
_MT_SLOTS = slice(24, 24 + 8 * _MT_WORDS)
_MT_FRESH = torch.Generator().manual_seed(0).get_state()


def _key_bytes(seed: int, purpose: str, counters: tuple[int, ...], length: int) -> bytes:
    """Compute uniform bytes that depend on every part of the key, by a cryptographic hash (SHAKE-128)."""
    if purpose not in _PURPOSES:
        raise ValueError(f"purpose {purpose!r} is unknown; choose one of {', '.join(_PURPOSES)}")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; give an integer >= 0")
    key = (index(seed), purpose, *map(index, counters))  # so that integers of NumPy and of Python give one key
    return hashlib.shake_128(repr(key).encode()).digest(length)


def generator(seed: int, purpose: Purpose, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a new generator for one key.

    On the CPU the whole state of the Mersenne Twister is filled from the key, because ``manual_seed`` keeps only 32
    bits of a seed: among 10⁵ steps some would share their noise.

    Args:
        seed: Seed of the run, at least 0.
        purpose: Purpose of the numbers; streams of different purposes are independent.
        counters: Further parts of the key, usually the epoch and the batch.
        device: Device on which the generator draws. CPU and CUDA streams of one key differ.

    Raises:
        ValueError: unknown purpose or negative seed.
        TypeError: a part of the key that is not an integer.

    Example:
        >>> first, second = generator(0, "noise", 3), generator(0, "noise", 3)
        >>> torch.equal(torch.rand(2, generator=first), torch.rand(2, generator=second))
        True
    """
    result = torch.Generator(device)
    if result.device.type != "cpu":
        return result.manual_seed(int.from_bytes(_key_bytes(seed, purpose, counters, 8), "little"))
    words = np.frombuffer(_key_bytes(seed, purpose, counters, 4 * _MT_WORDS), "<u4").copy()
    words[0] |= 0x80000000  # an all-zero state is the one state the Mersenne Twister never leaves
    state = _MT_FRESH.clone()
    state.numpy()[_MT_SLOTS].view(np.uint64)[:] = words
    return result.set_state(state)


@contextmanager
def preserved() -> Iterator[None]:
    """Restore the global random state of torch (CPU and CUDA), NumPy and Python on exit."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def global_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of torch's global generators, for a checkpoint.

    Args:
        device: Device of the run; the state of its generator is returned beside that of the CPU's.
    """
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_global_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore a state from `global_state`; the state of another kind of device is left out.

    Args:
        state: A result of `global_state`, on any device.
        device: Device of the run now.
    """
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


@contextmanager
def forked(seed: int, purpose: Purpose, *counters: int) -> Iterator[None]:
    """Seed the global generators with a key within this context; restore them on exit.

    Torch's CPU stream within the context is exactly that of ``generator(seed, purpose, *counters)``, so
    ``with forked(seed, "init"): net = AnyModule()`` gives any module a keyed initialization.

    Args:
        seed: Seed of the run, at least 0.
        purpose: Purpose of the numbers.
        counters: Further parts of the key.
    """
    with preserved():
        seed_globals(seed, purpose, *counters)
        yield


def seed_globals(seed: int, purpose: Purpose, *counters: int) -> None:
    """Seed the global generators of torch (CPU and CUDA), NumPy and Python with a key.

    Args:
        seed: Seed of the run, at least 0.
        purpose: Purpose of the numbers.
        counters: Further parts of the key.
    """
    small = int.from_bytes(_key_bytes(seed, purpose, counters, 4), "little")
    random.seed(small)
    np.random.seed(small)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(small)
    torch.default_generator.set_state(generator(seed, purpose, *counters).get_state())
