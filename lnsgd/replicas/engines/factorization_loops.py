"""Compiled loops of the factorization kernel.

Only `lnsgd.replicas.engines.factorization_kernel` imports this module, and only when it is needed, because importing
Numba takes a while.

In these loops d is the size of the measured matrix, r the number of columns of its factor U, and B the number of
examples in the largest batch. With S = A + Aᵀ the output is h = ⟨A, UUᵀ⟩ = ½⟨SU, U⟩ and its gradient is SU: one product
gives both.

Products are computed in tiles of a few rows and vectors, for which matrices are padded with zeros: rows to a multiple
of `ROWS`, columns to a multiple of `lanes`. Everything is in one file for the reason that
`lnsgd.replicas.engines.mlp_loops` gives.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core.cgutils import get_item_pointer
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from lnsgd.replicas.engines.kernel import BatchArrays

Array = np.ndarray

# Rows of a tile.
ROWS = 4
_VECTOR_BYTES = 64

# See `lnsgd.replicas.engines.mlp_loops`.
_ANY_ORDER = {"reassoc", "contract", "nsz", "arcp"}
_BARE: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_INLINED: dict[str, Any] = {"forceinline": True, **_BARE}

# Numba annotates intrinsics as if they were called with the argument that the compiler adds.
_intrinsic: Any = intrinsic


class Scratch(NamedTuple):
    """Intermediate results of one step, all padded and of the factor's type.

    Attributes:
        gradient: ∂h/∂U of a single example, or ∂loss/∂U of a batch, (d, r).
        transposed: Uᵀ, (r, d); its rows are not padded.
        product: UUᵀ, (d, d).
        combined: Sum over a batch of S·∂loss/∂h, (d, d); its columns are not padded.
    """

    gradient: Array
    transposed: Array
    product: Array
    combined: Array


def lanes(itemsize: int) -> int:
    """Return how many numbers of some size in bytes a vector holds."""
    return _VECTOR_BYTES // itemsize


def padded(number: int, multiple: int) -> int:
    """Round a number up to a multiple."""
    return -(-number // multiple) * multiple


def scratch_for(factor: Array, pool: Array) -> Scratch:
    """Allocate the memory of one thread, for padded factors (…, d, r) and a pool (N, d, d)."""
    rows, columns = factor.shape[-2:]
    width = padded(rows, lanes(factor.itemsize))
    shapes = (rows, columns), (columns, width), (rows, width), pool.shape[1:]
    return Scratch(*(np.zeros(shape, factor.dtype) for shape in shapes))


# -- vectors: Numba compiles a loop over arrays into code that keeps its sums in memory, which takes half as long again


class _Vector(types.Type):
    """A vector of `lanes` numbers in registers. A processor with shorter registers uses several."""

    def __init__(self, number: Any) -> None:
        self.number = number
        super().__init__(name=f"Vector({number})")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Vector) -> None:
        number = manager.lookup(kind.number).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, lanes(kind.number.bitwidth // 8)))


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return the address of the vector that starts at ``array[i, j]``; these are the first arguments."""
    kind, array = signature.args[0], context.make_array(signature.args[0])(context, builder, arguments[0])
    vector = context.get_value_type(_Vector(kind.dtype))
    return builder.bitcast(get_item_pointer(context, builder, kind, array, arguments[1:3]), vector.as_pointer())


@_intrinsic
def _zeros(_: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return _Vector(array.dtype)(array), generate


@_intrinsic
def _load(_: Any, array: Any, i: Any, j: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature, arguments), align=array.dtype.bitwidth // 8)

    return _Vector(array.dtype)(array, types.intp, types.intp), generate


@_intrinsic
def _store(_: Any, array: Any, i: Any, j: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature, arguments)
        builder.store(arguments[3], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), generate


@_intrinsic
def _add_product(_: Any, total: Any, number: Any, vector: Any) -> Any:
    """Compute ``total + number·vector``, rounded once if the processor can do so."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, number, vector = arguments
        index = ir.IntType(32)
        undefined = ir.Constant(vector.type, ir.Undefined)
        first = builder.insert_element(undefined, number, ir.Constant(index, 0))
        mask = ir.Constant(ir.VectorType(index, vector.type.count), None)
        product = builder.fmul(builder.shuffle_vector(first, undefined, mask), vector, flags=("contract",))
        return builder.fadd(product, total, flags=("contract",))

    return total(total, total.number, total), generate


@njit(**_INLINED)
def _tile_of_two(left: Array, right: Array, out: Array, i: int, j: int, far: int) -> None:
    """Compute the vectors at columns j and ``far`` of `ROWS` rows from row i on."""
    a = b = c = d = p = q = r = s = _zeros(right)
    for k in range(left.shape[1]):
        near_k, far_k = _load(right, k, j), _load(right, k, far)
        a, p = _add_product(a, left[i, k], near_k), _add_product(p, left[i, k], far_k)
        b, q = _add_product(b, left[i + 1, k], near_k), _add_product(q, left[i + 1, k], far_k)
        c, r = _add_product(c, left[i + 2, k], near_k), _add_product(r, left[i + 2, k], far_k)
        d, s = _add_product(d, left[i + 3, k], near_k), _add_product(s, left[i + 3, k], far_k)
    for row, near_sum, far_sum in ((i, a, p), (i + 1, b, q), (i + 2, c, r), (i + 3, d, s)):
        _store(out, row, j, near_sum)
        _store(out, row, far, far_sum)


@njit(**_INLINED)
def _tile_of_one(left: Array, right: Array, out: Array, i: int, j: int) -> None:
    """Compute the vector at column j of `ROWS` rows from row i on."""
    a = b = c = d = _zeros(right)
    for k in range(left.shape[1]):
        vector = _load(right, k, j)
        a, b = _add_product(a, left[i, k], vector), _add_product(b, left[i + 1, k], vector)
        c, d = _add_product(c, left[i + 2, k], vector), _add_product(d, left[i + 3, k], vector)
    for row, total in ((i, a), (i + 1, b), (i + 2, c), (i + 3, d)):
        _store(out, row, j, total)


@njit(**_INLINED)
def _multiply(left: Array, right: Array, out: Array) -> None:
    """Compute ``out = left @ right``; further rows of ``right`` than ``left`` has columns are ignored."""
    vector = _VECTOR_BYTES // out.itemsize
    rows, columns = out.shape
    for j in range(0, columns - vector, 2 * vector):
        for i in range(0, rows, ROWS):
            _tile_of_two(left, right, out, i, j, j + vector)
    if columns // vector % 2 == 1:
        for i in range(0, rows, ROWS):
            _tile_of_one(left, right, out, i, columns - vector)


# -- steps


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _inner(one: Array, other: Array) -> float:
    """Compute ⟨one, other⟩ over the columns of ``one``."""
    total = one.dtype.type(0)
    for i in range(one.shape[0]):
        for j in range(one.shape[1]):
            total += one[i, j] * other[i, j]
    return total


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _add(goal: Array, scale: float, other: Array) -> None:
    for i in range(goal.shape[0]):
        for j in range(goal.shape[1]):
            goal[i, j] += scale * other[i, j]


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _decay(velocity: Array, momentum: float) -> None:
    for i in range(velocity.shape[0]):
        for j in range(velocity.shape[1]):
            velocity[i, j] *= momentum


@njit(**_INLINED)
def _transpose(matrix: Array, out: Array) -> None:
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            out[j, i] = matrix[i, j]


# The next two functions return whether all outputs are finite, the mean loss, and the factor by which
# ``scratch.gradient`` must be multiplied.


@njit(**_INLINED)
def _single(factor: Array, pool: Array, row: int, target: float, scratch: Scratch) -> tuple[bool, float, float]:
    _multiply(pool[row], factor, scratch.gradient)
    output = 0.5 * np.float64(_inner(scratch.gradient, factor))
    error = output - np.float64(target)
    return math.isfinite(output), error * error, 2 * error


@njit(**_INLINED)
def _batch(factor: Array, pool: Array, rows: Array, targets: Array, scratch: Scratch) -> tuple[bool, float, float]:
    """Compute all outputs from UUᵀ, and add their gradients before the product with U: one product of d³ per batch."""
    _transpose(factor, scratch.transposed)
    _multiply(factor, scratch.transposed, scratch.product)
    scratch.combined[:] = 0
    finite, loss = True, 0.0
    for b in range(rows.size):
        output = 0.5 * np.float64(_inner(pool[rows[b]], scratch.product))
        error = output - np.float64(targets[b])
        finite = finite and math.isfinite(output)
        loss += error * error
        _add(scratch.combined, factor.dtype.type(2 * error / rows.size), pool[rows[b]])
    _multiply(scratch.combined, factor, scratch.gradient)
    return finite, loss / rows.size, 1.0


@njit(cache=True, nogil=True, **_BARE)
def take_steps(
    first: int,
    last: int,
    factors: Array,
    velocities: Array,
    pool: Array,
    momentum: float,
    batches: BatchArrays,
    first_step: int,
    frozen_at: Array,
    losses: Array,
    scratch: Scratch,
) -> None:
    """Take the steps of some batches with the replicas ``first`` to ``last − 1``.

    Args:
        first: First replica.
        last: The replica after the last one.
        factors: U of all replicas, padded (R, d, r); changed in place.
        velocities: Velocities of the factors; empty without momentum.
        pool: S = A + Aᵀ of all examples, (N, d, d), its rows padded.
        momentum: See `lnsgd.replicas.engines.base.StepRule`.
        batches: The batches, with one target for each example.
        first_step: Number of steps taken before.
        frozen_at: See `lnsgd.replicas.engines.base.TrainingState`; changed in place.
        losses: Sum of the losses of each replica, (R,); the losses of the steps are added one by one.
        scratch: Memory of this thread, from `scratch_for`.
    """
    kind = factors.dtype.type
    for r in range(first, last):
        if frozen_at[r] >= 0:
            continue
        factor, total = factors[r], losses[r]
        for k in range(batches.rows.shape[1]):
            size = batches.sizes[r, k]
            rows, targets = batches.rows[r, k, :size], batches.targets[r, k, :size, 0]
            if size == 1:
                finite, loss, slope = _single(factor, pool, rows[0], targets[0], scratch)
            else:
                finite, loss, slope = _batch(factor, pool, rows, targets, scratch)
            if not finite:
                frozen_at[r] = first_step + k
                break
            total += loss
            lr = batches.lrs[r, k]
            if momentum == 0:
                _add(factor, kind(-lr * slope), scratch.gradient)
            else:
                _decay(velocities[r], kind(momentum))
                _add(velocities[r], kind(slope), scratch.gradient)
                _add(factor, kind(-lr), velocities[r])
        losses[r] = total
