"""Compiled loops of the MLP kernel.

Only `lnsgd.replicas.engines.mlp_kernel` imports this module, and only when it is needed, because importing Numba takes
a while.

In these loops d is the number of inputs, H the number of hidden neurons, O the number of outputs, and B the number of
examples in the largest batch. The inner loop is always over neurons, which lie next to each other in every array.
Everything is in one file, because Numba compiles a cached function again only when the file of the outermost function
changes.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from lnsgd.replicas.engines.kernel import BatchArrays

Array = np.ndarray

RELU, TANH, LOGISTIC, CUBIC = range(4)
ONE_VS_REST, HINGE, SOFTMAX, SQUARED = range(4)

# Sums may be taken in any order, so that they are vectorized, and a·b + c may be rounded once. Nothing is
# assumed of NaN and infinity ("nnan", "ninf"), by which divergence is seen, and nothing is approximated.
_ANY_ORDER = {"reassoc", "contract", "nsz", "arcp"}

# The arrays belong to the caller throughout. Counting references to them, checking for divisions by zero and
# passing structures of arrays through calls took several times as long as a step of a small net.
_BARE: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_INLINED: dict[str, Any] = {"forceinline": True, **_BARE}

_LOG2_E = 1 / math.log(2)
# log 2 in two parts, of which the first has so few digits that n times it is exact.
_LN_2 = 6.93147180369123816490e-01
_LN_2_REST = 1.90821492927058770002e-10
# Added to a smaller number and taken away again, it rounds it to an integer.
_ROUNDING = 1.5 * 2.0**52

# Fewer than one live neuron in this many, and visiting them one by one is faster than a loop over all (measured).
_FEW_LIVE = 16
# So many inputs at least, for a count of the live neurons to pay.
_MANY_INPUTS = 8


class Pool(NamedTuple):
    """Inputs without their zeros (compressed sparse rows): row n is ``values[starts[n]:starts[n + 1]]``."""

    starts: Array
    columns: Array
    values: Array


class Net(NamedTuple):
    """Weights (or velocities) of one replica, or of all with a leading dimension.

    Attributes:
        hidden: (d, H).
        hidden_bias: (H,).
        output: (O, H).
        output_bias: (O,).
        skip: (O, d); (O, 0) for a network without.
    """

    hidden: Array
    hidden_bias: Array
    output: Array
    output_bias: Array
    skip: Array


class Trained(NamedTuple):
    """Which tensors of a `Net` are trained."""

    hidden: bool
    hidden_bias: bool
    output: bool
    output_bias: bool
    skip: bool


class Rule(NamedTuple):
    """Activation, loss (with its parameter: ν, margin, factor of the squared loss) and momentum."""

    activation: int
    nu: float
    loss: int
    loss_parameter: float
    momentum: float


class Scratch(NamedTuple):
    """Memory for the intermediate results of one batch; all but the last have the type of the weights.

    Attributes:
        active: Activations, (B, H).
        delta: Pre-activations z, then ∂loss/∂z, (B, H).
        outputs: Of one example, (O,).
        slopes: ∂loss/∂output, (B, O).
        back: ∂loss/∂activation of one example, (H,).
        live: Neurons of one example with a gradient, (H,), int64.
    """

    active: Array
    delta: Array
    outputs: Array
    slopes: Array
    back: Array
    live: Array


def pool_of(dense: Array) -> Pool:
    """`Pool` of inputs (N, d)."""
    starts = np.zeros(len(dense) + 1, np.int64)
    _count_nonzeros(dense, starts)
    pool = Pool(starts, np.empty(starts[-1], np.int32), np.empty(starts[-1], dense.dtype))
    _fill_pool(dense, pool)
    return pool


@njit(cache=True)
def _count_nonzeros(dense: Array, starts: Array) -> None:
    for n in range(dense.shape[0]):
        count = 0
        for i in range(dense.shape[1]):
            count += dense[n, i] != 0
        starts[n + 1] = starts[n] + count


@njit(cache=True)
def _fill_pool(dense: Array, pool: Pool) -> None:
    for n in range(dense.shape[0]):
        p = pool.starts[n]
        for i in range(dense.shape[1]):
            if dense[n, i] != 0:
                pool.columns[p] = i
                pool.values[p] = dense[n, i]
                p += 1


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _preactivate(net: Net, pool: Pool, row: int, z: Array, b: int) -> None:
    width = z.shape[1]
    weights, bias, columns, values = net.hidden, net.hidden_bias, pool.columns, pool.values
    p, stop = pool.starts[row], pool.starts[row + 1]
    over = (stop - p) % 4
    if over == 0:
        for j in range(width):
            z[b, j] = bias[j]
    elif over == 1:
        i0 = columns[p]
        x0 = values[p]
        for j in range(width):
            z[b, j] = bias[j] + x0 * weights[i0, j]
    elif over == 2:
        i0, i1 = columns[p], columns[p + 1]
        x0, x1 = values[p], values[p + 1]
        for j in range(width):
            z[b, j] = bias[j] + x0 * weights[i0, j] + x1 * weights[i1, j]
    else:
        i0, i1, i2 = columns[p], columns[p + 1], columns[p + 2]
        x0, x1, x2 = values[p], values[p + 1], values[p + 2]
        for j in range(width):
            z[b, j] = bias[j] + x0 * weights[i0, j] + x1 * weights[i1, j] + x2 * weights[i2, j]
    for q in range(p + over, stop, 4):
        i0, i1, i2, i3 = columns[q], columns[q + 1], columns[q + 2], columns[q + 3]
        x0, x1, x2, x3 = values[q], values[q + 1], values[q + 2], values[q + 3]
        for j in range(width):
            z[b, j] += (x0 * weights[i0, j] + x1 * weights[i1, j]) + (x2 * weights[i2, j] + x3 * weights[i3, j])


# The C library's tanh and exp take one number at a time, this is vectorized. Sums must keep their order here.
@njit(fastmath={"contract"}, **_INLINED)
def _exponential(x: float) -> tuple[float, float]:
    """``(s, q)`` with exp(x) = s + s·q, s a power of two and |q| < ½, for x ≤ 0 in double precision."""
    x = x if not x < -700.0 else -700.0
    shifted = np.float64(x * _LOG2_E + _ROUNDING)
    n = shifted - _ROUNDING
    r = (x - n * _LN_2) - n * _LN_2_REST
    q = 1 / 6227020800
    q = q * r + 1 / 479001600
    q = q * r + 1 / 39916800
    q = q * r + 1 / 3628800
    q = q * r + 1 / 362880
    q = q * r + 1 / 40320
    q = q * r + 1 / 5040
    q = q * r + 1 / 720
    q = q * r + 1 / 120
    q = q * r + 1 / 24
    q = q * r + 1 / 6
    q = q * r + 1 / 2
    q = q * r + 1
    # The last bits of ``shifted`` are n; they become the exponent of 2ⁿ.
    power = np.int64((shifted.view(np.int64) + 1023) << 52)
    return power.view(np.float64), q * r


@njit(**_INLINED)
def _tanh(z: float) -> float:
    s, q = _exponential(-2 * abs(z))
    minus_one = s * q + (s - 1)
    t = minus_one / (2 + minus_one)
    return t if z < 0 else -t


@njit(**_INLINED)
def _logistic(z: float) -> float:
    s, q = _exponential(-abs(z))
    e = s + s * q
    return (e if z < 0 else 1.0) / (1 + e)


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _activate(rule: Rule, z: Array, a: Array, b: int) -> None:
    width = z.shape[1]
    zero, nu = z.dtype.type(0), z.dtype.type(rule.nu)
    if rule.activation == RELU:
        for j in range(width):
            # A NaN stays one.
            a[b, j] = z[b, j] if not z[b, j] <= zero else zero
    elif rule.activation == TANH:
        for j in range(width):
            a[b, j] = _tanh(np.float64(z[b, j]))
    elif rule.activation == LOGISTIC:
        for j in range(width):
            a[b, j] = _logistic(np.float64(z[b, j]))
    else:
        for j in range(width):
            a[b, j] = z[b, j] * (z[b, j] * z[b, j] + nu)


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _output(net: Net, a: Array, b: int, outputs: Array) -> None:
    for c in range(outputs.size):
        total = net.output_bias[c]
        for j in range(a.shape[1]):
            total += net.output[c, j] * a[b, j]
        outputs[c] = total


# Not inlined, as `_add_skip`: that slowed networks without a skip.
@njit(fastmath=_ANY_ORDER, **_BARE)
def _output_skip(net: Net, pool: Pool, row: int, outputs: Array) -> None:
    for c in range(outputs.size):
        total = outputs[c]
        for q in range(pool.starts[row], pool.starts[row + 1]):
            total += net.skip[c, pool.columns[q]] * pool.values[q]
        outputs[c] = total


# Where sums may be taken in any order, the compiler makes o - o zero for every o and finds all finite.
@njit(**_INLINED)
def _all_finite(outputs: Array) -> bool:
    finite = True
    for c in range(outputs.size):
        finite = finite and math.isfinite(outputs[c])
    return finite


@njit(**_INLINED)
def _softmax(outputs: Array, targets: Array, slopes: Array) -> float:
    top = np.float64(outputs[0])
    for c in range(1, outputs.size):
        top = max(top, np.float64(outputs[c]))
    total = 0.0
    mass = 0.0
    for c in range(outputs.size):
        total += math.exp(outputs[c] - top)
        mass += targets[c]
    loss = 0.0
    log_total = math.log(total)
    for c in range(outputs.size):
        shifted = outputs[c] - top
        loss += targets[c] * (log_total - shifted)
        slopes[c] = mass * math.exp(shifted) / total - targets[c]
    return loss


@njit(**_INLINED)
def _score(rule: Rule, outputs: Array, targets: Array, slopes: Array) -> float:
    """Loss of one example, in double precision, and its derivatives by the outputs."""
    if rule.loss == SOFTMAX:
        return _softmax(outputs, targets, slopes)
    loss = 0.0
    for c in range(outputs.size):
        o, t = np.float64(outputs[c]), np.float64(targets[c])
        if rule.loss == ONE_VS_REST:
            # No exponential of a positive number, which could overflow.
            e = math.exp(-abs(o))
            loss += math.log1p(e) + max(o, 0.0) - o * t
            slopes[c] = (1 / (1 + e) if o >= 0 else e / (1 + e)) - t
        elif rule.loss == HINGE:
            short = rule.loss_parameter - t * o
            slopes[c] = -t if short > 0 else 0.0
            loss += max(short, 0.0)
        else:
            slopes[c] = 2 * rule.loss_parameter * (o - t)
            loss += rule.loss_parameter * (o - t) * (o - t)
    return loss


@njit(**_INLINED)
def _any_nonzero(slopes: Array) -> bool:
    some = False
    for c in range(slopes.size):
        some = some or slopes[c] != 0
    return some


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _through_output(net: Net, scratch: Scratch, b: int) -> tuple[Array, float]:
    """∂loss/∂activation is the vector times the factor."""
    slopes = scratch.slopes
    if slopes.shape[1] == 1:
        return net.output[0], slopes[b, 0]
    back = scratch.back
    for j in range(back.size):
        back[j] = slopes[b, 0] * net.output[0, j]
    for c in range(1, slopes.shape[1]):
        if slopes[b, c] != 0:
            for j in range(back.size):
                back[j] += slopes[b, c] * net.output[c, j]
    return back, slopes.dtype.type(1)


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _backward(rule: Rule, net: Net, scratch: Scratch, b: int) -> None:
    delta, a = scratch.delta, scratch.active
    width = delta.shape[1]
    back, factor = _through_output(net, scratch, b)
    zero, one, three, nu = delta.dtype.type(0), delta.dtype.type(1), delta.dtype.type(3), delta.dtype.type(rule.nu)
    if rule.activation == RELU:
        for j in range(width):
            delta[b, j] = factor * back[j] if delta[b, j] > zero else zero
    elif rule.activation == TANH:
        for j in range(width):
            delta[b, j] = factor * back[j] * (one - a[b, j] * a[b, j])
    elif rule.activation == LOGISTIC:
        for j in range(width):
            delta[b, j] = factor * back[j] * (a[b, j] * (one - a[b, j]))
    else:
        for j in range(width):
            delta[b, j] = factor * back[j] * (three * delta[b, j] * delta[b, j] + nu)


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _list_live(delta: Array, b: int, live: Array) -> int:
    """Writes the neurons with a gradient into ``live`` and returns their number; −1 where they are not few."""
    width = delta.shape[1]
    count = delta.dtype.type(0)
    for j in range(width):
        count += delta.dtype.type(1) if delta[b, j] != 0 else delta.dtype.type(0)
    if count * _FEW_LIVE >= width:
        return -1
    n = 0
    for j in range(width):
        if delta[b, j] != 0:
            live[n] = j
            n += 1
    return n


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _add_hidden(goal: Net, pool: Pool, row: int, scratch: Scratch, b: int, scale: float) -> None:
    delta, live, columns = scratch.delta, scratch.live, pool.columns
    p, stop = pool.starts[row], pool.starts[row + 1]
    few = _list_live(delta, b, live) if stop - p >= _MANY_INPUTS else -1
    if few >= 0:
        for q in range(p, stop):
            step = scale * pool.values[q]
            for m in range(few):
                goal.hidden[columns[q], live[m]] += step * delta[b, live[m]]
        return
    # Backwards: the rows of weights that the forward pass read last are still in the cache.
    q = stop - 1
    while q > p:
        i0, i1 = columns[q], columns[q - 1]
        s0, s1 = scale * pool.values[q], scale * pool.values[q - 1]
        for j in range(delta.shape[1]):
            goal.hidden[i0, j] += s0 * delta[b, j]
            goal.hidden[i1, j] += s1 * delta[b, j]
        q -= 2
    if q == p:
        i0, s0 = columns[q], scale * pool.values[q]
        for j in range(delta.shape[1]):
            goal.hidden[i0, j] += s0 * delta[b, j]


@njit(fastmath=_ANY_ORDER, **_BARE)
def _add_skip(goal: Net, pool: Pool, row: int, scratch: Scratch, b: int, scale: float) -> None:
    for c in range(scratch.slopes.shape[1]):
        for q in range(pool.starts[row], pool.starts[row + 1]):
            goal.skip[c, pool.columns[q]] += scale * scratch.slopes[b, c] * pool.values[q]


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _add_gradient(goal: Net, trained: Trained, pool: Pool, row: int, scratch: Scratch, b: int, scale: float) -> None:
    delta, a, slopes = scratch.delta, scratch.active, scratch.slopes
    width = a.shape[1]
    if not _any_nonzero(slopes[b]):
        return
    for c in range(slopes.shape[1]):
        if slopes[b, c] != 0:
            step = scale * slopes[b, c]
            if trained.output:
                for j in range(width):
                    goal.output[c, j] += step * a[b, j]
            if trained.output_bias:
                goal.output_bias[c] += step
    if trained.hidden_bias:
        for j in range(width):
            goal.hidden_bias[j] += scale * delta[b, j]
    if trained.hidden:
        _add_hidden(goal, pool, row, scratch, b, scale)
    if trained.skip:
        _add_skip(goal, pool, row, scratch, b, scale)


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _multiply(row: Array, factor: float) -> None:
    for j in range(row.size):
        row[j] *= factor


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _decay(velocity: Net, trained: Trained, momentum: float) -> None:
    if trained.hidden:
        for i in range(velocity.hidden.shape[0]):
            _multiply(velocity.hidden[i], momentum)
    if trained.hidden_bias:
        _multiply(velocity.hidden_bias, momentum)
    if trained.output:
        for c in range(velocity.output.shape[0]):
            _multiply(velocity.output[c], momentum)
    if trained.output_bias:
        _multiply(velocity.output_bias, momentum)
    if trained.skip:
        for c in range(velocity.skip.shape[0]):
            _multiply(velocity.skip[c], momentum)


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _subtract(row: Array, factor: float, other: Array) -> None:
    for j in range(row.size):
        row[j] -= factor * other[j]


@njit(fastmath=_ANY_ORDER, **_INLINED)
def _move(net: Net, velocity: Net, trained: Trained, lr: float) -> None:
    if trained.hidden:
        for i in range(net.hidden.shape[0]):
            _subtract(net.hidden[i], lr, velocity.hidden[i])
    if trained.hidden_bias:
        _subtract(net.hidden_bias, lr, velocity.hidden_bias)
    if trained.output:
        for c in range(net.output.shape[0]):
            _subtract(net.output[c], lr, velocity.output[c])
    if trained.output_bias:
        _subtract(net.output_bias, lr, velocity.output_bias)
    if trained.skip:
        for c in range(net.skip.shape[0]):
            _subtract(net.skip[c], lr, velocity.skip[c])


@njit(**_INLINED)
def _of_replica(nets: Net, r: int) -> Net:
    return Net(nets.hidden[r], nets.hidden_bias[r], nets.output[r], nets.output_bias[r], nets.skip[r])


def scratch_for(net: Net, examples: int) -> Scratch:
    """Memory of one thread."""
    _, outputs, width = net.output.shape
    kind = net.output.dtype
    return Scratch(
        np.empty((examples, width), kind),
        np.empty((examples, width), kind),
        np.empty(outputs, kind),
        np.empty((examples, outputs), kind),
        np.empty(width, kind),
        np.empty(width, np.int64),
    )


@njit(**_INLINED)
def _loss_and_gradient(
    net: Net, trained: Trained, rule: Rule, pool: Pool, rows: Array, targets: Array, scratch: Scratch
) -> tuple[bool, float]:
    """Whether all outputs of a batch are finite, and the mean loss; leaves the gradient's factors in ``scratch``."""
    loss = 0.0
    for b in range(rows.size):
        _preactivate(net, pool, rows[b], scratch.delta, b)
        _activate(rule, scratch.delta, scratch.active, b)
        _output(net, scratch.active, b, scratch.outputs)
        if net.skip.shape[1] > 0:
            _output_skip(net, pool, rows[b], scratch.outputs)
        if not _all_finite(scratch.outputs):
            return False, 0.0
        loss += _score(rule, scratch.outputs, targets[b], scratch.slopes[b])
        if (trained.hidden or trained.hidden_bias) and _any_nonzero(scratch.slopes[b]):
            _backward(rule, net, scratch, b)
    return True, loss / rows.size


@njit(**_INLINED)
def _update(
    net: Net, goal: Net, trained: Trained, rule: Rule, pool: Pool, rows: Array, lr: float, scratch: Scratch
) -> None:
    kind = net.output.dtype.type
    if rule.momentum != 0:
        _decay(goal, trained, kind(rule.momentum))
        scale = kind(1 / rows.size)
    else:
        scale = kind(-lr / rows.size)
    for b in range(rows.size):
        _add_gradient(goal, trained, pool, rows[b], scratch, b, scale)
    if rule.momentum != 0:
        _move(net, goal, trained, kind(lr))


@njit(cache=True, nogil=True, **_BARE)
def take_steps(
    first: int,
    last: int,
    nets: Net,
    goals: Net,
    trained: Trained,
    rule: Rule,
    pool: Pool,
    batches: BatchArrays,
    first_step: int,
    frozen_at: Array,
    losses: Array,
    scratch: Scratch,
) -> None:
    """Takes all steps of a chunk with the replicas from ``first`` up to ``last``.

    Args:
        first: First replica.
        last: The one after the last.
        nets: Weights of all replicas; changed in place.
        goals: What gradients are added to: velocities, or without momentum the weights themselves.
        trained: Which tensors are trained.
        rule: Activation, loss and momentum.
        pool: Inputs.
        batches: The chunk.
        first_step: StepRange taken before.
        frozen_at: See `lnsgd.replicas.engines.base.State`; changed in place.
        losses: Each replica's sum of losses, (R,); the steps' are added, one after the other.
        scratch: Memory of this thread, `scratch_for`.
    """
    for r in range(first, last):
        if frozen_at[r] >= 0:
            continue
        net, goal = _of_replica(nets, r), _of_replica(goals, r)
        # Not in ``losses``: threads would write to one cache line at every step.
        total = losses[r]
        for k in range(batches.rows.shape[1]):
            rows = batches.rows[r, k, : batches.sizes[r, k]]
            finite, loss = _loss_and_gradient(net, trained, rule, pool, rows, batches.targets[r, k], scratch)
            if not finite:
                frozen_at[r] = first_step + k
                break
            total += loss
            _update(net, goal, trained, rule, pool, rows, batches.lrs[r, k], scratch)
        losses[r] = total
