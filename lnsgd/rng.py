"""Generators from keys: everything random in lnsgd comes from (seed, purpose, counters).

A key names one stream. Two different keys give independent streams, the same key gives the same
stream on every process and after every restart, so nothing has to be saved to resume a run and
no result depends on how many processes ran it.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch

Purpose = Literal["init", "order", "noise", "augmentation", "probes", "subset", "corruption"]

# The position of a purpose is part of the key: append, never reorder.
_PURPOSES: tuple[str, ...] = get_args(Purpose)

# Layout of the CPU generator's state: a 24-byte header, then 624 words of 32 bits in 64-bit slots.
_MT_WORDS = 624
_MT_HEADER_BYTES = 24


def _seed_sequence(seed: int, purpose: str, counters: tuple[int, ...]) -> np.random.SeedSequence:
    if purpose not in _PURPOSES:
        raise ValueError(f"purpose {purpose!r} is unknown; choose one of {', '.join(_PURPOSES)}")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; give an integer >= 0")
    return np.random.SeedSequence(seed, spawn_key=(_PURPOSES.index(purpose), *counters))


def generator(seed: int, purpose: Purpose, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one key.

    On the CPU the whole 19,968-bit state is filled from the key: ``manual_seed`` keeps only 32 bits
    there, so that among 10⁵ steps some would share their noise.

    Args:
        seed: Seed of the run, at least 0.
        purpose: What the numbers are for; streams of different purposes are independent.
        counters: Further parts of the key, usually the epoch and the batch.
        device: Device the generator draws on. CPU and CUDA streams of one key differ.

    Raises:
        ValueError: Unknown purpose or negative seed.
    """
    sequence = _seed_sequence(seed, purpose, counters)
    result = torch.Generator(device)
    if result.device.type != "cpu":
        return result.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
    state = torch.Generator().manual_seed(0).get_state().numpy()
    words = sequence.generate_state(_MT_WORDS)
    words[0] |= 0x80000000  # an all-zero state is the one state the Mersenne Twister never leaves
    state[_MT_HEADER_BYTES : _MT_HEADER_BYTES + 8 * _MT_WORDS].view(np.uint64)[:] = words
    result.set_state(torch.from_numpy(state))
    return result


@contextmanager
def preserved() -> Iterator[None]:
    """Restores the global random state of torch (CPU and CUDA), NumPy and Python on exit."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def forked(seed: int, purpose: Purpose, *counters: int) -> Iterator[None]:
    """Runs code that draws from the global generators as if they belonged to a key; restores them on exit.

    Torch's CPU stream inside is exactly that of ``generator(seed, purpose, *counters)``, so
    ``with forked(seed, "init"): net = AnyModule()`` gives any module a keyed initialization.
    """
    sequence = _seed_sequence(seed, purpose, counters)
    with preserved():
        small = int(sequence.generate_state(1)[0])
        random.seed(small)
        np.random.seed(small)
        torch.manual_seed(small)
        torch.random.default_generator.set_state(generator(seed, purpose, *counters).get_state())
        yield
