"""Label noise recovers a matrix of low rank from few measurements: Blanc et al., Fig. 1.

UUᵀ is fitted to X* = U*U*ᵀ (d × d, rank r) on n = 5dr measurements ⟨A, X*⟩, from U = I, by SGD with batches of one on
(⟨A, UUᵀ⟩ − y)². Many matrices fit. Among them noise of variance Var moves U along −∇R in slow time η²·Var·steps, to
first order in η, with R = E‖∇h‖² = 2(d + 1)‖U‖²_F, which is 2(d + 1) times the nuclear norm of UUᵀ. X* has a small one.

Two arms are controls, at scale ``paper`` with a smaller matrix (d = 50, r = 2, n = 500, η = 1.6·10⁻⁴): other noise
levels and half the step size; and noise that is drawn once for each measurement and kept.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import LogLocator, NullFormatter

from lnsgd.figures.claims import Claim, judge
from lnsgd.figures.figure import Figure, Runs, Scale
from lnsgd.figures.results import Curves, config, measured, replicas
from lnsgd.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, draw_geometric_band, plain
from lnsgd.run_folder import RunFolder

SOURCE = "Blanc et al., Fig. 1"
SENSING, CONTROLS, KEPT = "label noise", "other levels and steps", "noise kept"

# Standard deviations: that of a variance of 0.1, and 0.1 itself.
STD, SMALL_STD, NONE = 0.31622777, 0.1, 0.0
COLORS = {NONE: BLUE, STD: ORANGE}
LABELS = {NONE: "no noise", STD: "label noise N(0, 0.1)"}

# An error that is this part of the initial one has gone to zero, and one that is still this large has not.
GONE, LARGE = 0.01, 0.1


def of_level(run: RunFolder, curves: Curves, noise: float, rate: int = 0) -> Curves:
    """Of a run's curves those at one noise level, a row for each seed.

    Args:
        run: The run.
        curves: Of all its replicas.
        noise: Standard deviation of the noise.
        rate: Which of its step sizes, the largest first.
    """
    table = replicas(run)
    rates = np.sort(table["lr"].unique())[::-1]
    return curves._replace(values=curves.values[np.isclose(table["noise"], noise) & (table["lr"] == rates[rate])])


def train_error(run: RunFolder, noise: float, rate: int = 0) -> Curves:
    """Mean squared error on the measurements, without noise; see `of_level`."""
    return of_level(run, measured(run, "loss", "train"), noise, rate)


def recovery(run: RunFolder, noise: float, rate: int = 0) -> Curves:
    """‖UUᵀ − X*‖²_F; see `of_level`."""
    return of_level(run, measured(run, "recovery_error"), noise, rate)


def nuclear_norm(run: RunFolder, noise: float) -> Curves:
    """That of UUᵀ, which is ‖U‖²_F; see `of_level`."""
    norms = of_level(run, measured(run, "norm", layer="net.factor"), noise)
    return norms._replace(values=norms.values**2)


def regularizer(run: RunFolder, noise: float) -> Curves:
    """Mean ‖∇h‖² on measurements that were not trained on; see `of_level`."""
    return of_level(run, measured(run, "implicit_regularizer", "test"), noise)


def size(run: RunFolder) -> int:
    """D."""
    return int(config(run)["data"]["init_args"]["size"])


def rank(run: RunFolder) -> int:
    """The rank r of X*, which is also its nuclear norm."""
    return int(config(run)["data"]["init_args"]["rank"])


def left(error: Curves) -> np.ndarray:
    """The last error in parts of the first, (R,)."""
    return error.last / error.values[:, 0]


def steps_below(error: Curves, level: np.ndarray) -> np.ndarray:
    """Step at which each replica's error first falls below its level (R,); NaN where it never does.

    Interpolated between measurements along a line on logarithmic axes.
    """
    later = error.steps > 0
    steps, values = np.log(error.steps[later]), np.log(error.values[:, later])
    found = []
    for row, at in zip(values, np.log(level)):
        below = np.flatnonzero(row < at)
        i = below[0] if len(below) else None
        if i is None:
            found.append(np.nan)
        else:
            found.append(np.exp(steps[0] if i == 0 else np.interp(at, row[[i, i - 1]], steps[[i, i - 1]])))
    return np.array(found)


def _claims(runs: Runs) -> list[Claim]:
    return [*_errors(runs[SENSING]), *_theory(runs[SENSING]), *_controls(runs[CONTROLS], runs[KEPT])]


def _errors(run: RunFolder) -> list[Claim]:
    """The paper's figure."""
    end = f"at step {measured(run, 'recovery_error').steps[-1]:,}, in parts of that at U = I; d = {size(run)}"
    noisy, clean = train_error(run, STD), train_error(run, NONE)
    fitted = [steps_below(error, GONE * error.values[:, 0]) / error.steps[-1] for error in (noisy, clean)]
    return [
        judge(
            f"train error without noise goes to 0 ({end})",
            source=SOURCE,
            paper="→ 0",
            measured=left(clean).tolist(),
            high=GONE,
        ),
        judge(
            f"train error with noise goes to 0 ({end})",
            source=SOURCE,
            paper="→ 0",
            measured=left(noisy).tolist(),
            high=GONE,
        ),
        judge(
            "quickly in both: step at which a hundredth of it is left, in parts of the run (the later of both arms)",
            source=SOURCE,
            paper="quickly",
            measured=np.maximum(*fitted).tolist(),
            high=0.01,
        ),
        judge(
            f"test error ‖UUᵀ − X*‖² without noise stays large ({end})",
            source=SOURCE,
            paper="large",
            measured=left(recovery(run, NONE)).tolist(),
            low=LARGE,
        ),
        judge(
            f"test error with noise goes to 0 ({end})",
            source=SOURCE,
            paper="→ 0",
            measured=left(recovery(run, STD)).tolist(),
            high=GONE,
        ),
    ]


def _theory(run: RunFolder) -> list[Claim]:
    """Closed forms of the regularizer and of what noise leaves of the train error."""
    factor = 2 * (size(run) + 1)
    found = [regularizer(run, noise).last / (factor * nuclear_norm(run, noise).last) for noise in (STD, NONE)]
    norm = nuclear_norm(run, STD).last
    floor = factor * norm * replicas(run)["lr"].max() * STD**2
    return [
        judge(
            "E‖∇h‖² over 2(d + 1) times the nuclear norm of UUᵀ, in the end, mean of both arms (fresh measurements)",
            source="Blanc et al., matrix sensing; exact for Gaussian A",
            paper=1.0,
            measured=np.mean(found, axis=0).tolist(),
            low=0.95,
            high=1.05,
        ),
        judge(
            "with noise the nuclear norm falls to that of X* (ratio in the end)",
            source="Blanc et al., matrix sensing",
            paper=1.0,
            measured=(norm / rank(run)).tolist(),
            low=0.9,
            high=1.1,
        ),
        judge(
            "train error with noise in the end over 2(d + 1)·‖U‖²·η·Var",
            source="derived: stationary SGD on a quadratic, to first order in η",
            paper=1.0,
            measured=(train_error(run, STD).last / floor).tolist(),
            low=0.5,
            high=2.0,
        ),
    ]


def _controls(run: RunFolder, kept: RunFolder) -> list[Claim]:
    where = f"d = {size(run)}, step {measured(run, 'recovery_error').steps[-1]:,}"
    # Half of its own: a larger step leaves a smaller test error without noise already.
    fast, slow = (steps_below(recovery(run, STD, rate), recovery(run, NONE, rate).last / 2) for rate in (0, 1))
    return [
        judge(
            f"time scale ∝ 1/η²: steps until half of the test error left without noise, η/2 over η (d = {size(run)})",
            source=SOURCE,
            paper=4.0,
            measured=(slow / fast).tolist(),
            low=2**1.5,
            high=2**2.5,
        ),
        judge(
            f"control: noise of std 0.1 recovers far less (test error over that of variance 0.1; {where})",
            source="chosen",
            paper="far less",
            measured=(recovery(run, SMALL_STD).last / recovery(run, STD).last).tolist(),
            low=3.0,
        ),
        judge(
            f"control: noise of variance 0.1 drawn once and kept recovers nothing (test error left; {where})",
            source="chosen",
            paper="large",
            measured=left(recovery(kept, NONE)).tolist(),
            low=LARGE,
        ),
    ]


def _draw(runs: Runs) -> Picture:
    picture = Picture(figsize=(11, 7.8), layout="constrained")
    (train, test), (control, theory) = picture.subplots(2, 2)
    run = runs[SENSING]
    for axis, error in ((train, train_error), (test, recovery)):
        for noise in (NONE, STD):
            _draw_later(axis, error(run, noise), COLORS[noise], LABELS[noise])
    problem = f"d = {size(run)}, r = {rank(run)}, n = {5 * size(run) * rank(run):,}"
    train.set(title=f"Train error ({problem})", ylabel="mean squared error on the measurements")
    test.set(title="Test error", ylabel="$\\|UU^\\top-X^*\\|_F^2$")
    for axis in (train, test, control, theory):
        axis.set(xscale="log", yscale="log", xlabel="SGD steps (batches of one)")
        plain(axis)
    _draw_controls(control, runs[CONTROLS], runs[KEPT])
    _draw_regularizer(theory, run)
    for axis in (train, test, control, theory):
        axis.legend(frameon=False, fontsize=9, loc="lower left")
    return picture


def _draw_later(axis: Axes, curves: Curves, color: str, label: str, unit: float = 1, **line: Any) -> None:
    """Without the initial value, for which a logarithmic axis has no place."""
    later = curves.steps > 0
    draw_geometric_band(axis, curves.steps[later] * unit, curves.values[:, later], color, label, **line)


def _draw_controls(axis: Axes, run: RunFolder, kept: RunFolder) -> None:
    """Test errors over η²·steps: runs of one variance are one curve, as far as η is small."""
    rates = np.sort(replicas(run)["lr"].unique())[::-1]
    for of_run, noise, rate, color, label, style in (
        (run, NONE, 0, COLORS[NONE], LABELS[NONE], "-"),
        (kept, NONE, 0, PURPLE, "noise N(0, 0.1) drawn once and kept", "--"),
        (run, SMALL_STD, 0, GREEN, "label noise of standard deviation 0.1", "-"),
        (run, STD, 0, COLORS[STD], LABELS[STD], "-"),
        (run, STD, 1, "black", "the same, half the step size", ":"),
    ):
        error = recovery(of_run, noise, rate)
        relative = error._replace(values=error.values / error.values[:, :1])
        _draw_later(axis, relative, color, label, rates[rate] ** 2, linestyle=style, linewidth=1.8)
    axis.set(
        title=f"Controls (d = {size(run)}, r = {rank(run)}, n = {5 * size(run) * rank(run):,})",
        xlabel="slow time $\\eta^2\\cdot$steps",
        ylabel="test error, relative to that at $U=I$",
    )


def _draw_regularizer(axis: Axes, run: RunFolder) -> None:
    factor = 2 * (size(run) + 1)
    for noise in (NONE, STD):
        found, norm = regularizer(run, noise), nuclear_norm(run, noise)
        label = f"$2(d+1)\\|UU^\\top\\|_*$, {LABELS[noise]}"
        _draw_later(axis, norm._replace(values=factor * norm.values), COLORS[noise], label)
        later = found.steps > 0
        mean = np.exp(np.log(found.values[:, later]).mean(0))
        axis.plot(found.steps[later], mean, "o", color=COLORS[noise], markersize=5, markeredgecolor="white")
    axis.plot([], [], "o", color=GREY, markersize=5, label="measured $E\\|\\nabla h\\|^2$")
    axis.axhline(factor * rank(run), color=GREY, linestyle=":", linewidth=1.2, label="$2(d+1)\\|X^*\\|_*$")
    axis.set(title="The regularizer is the nuclear norm", ylabel="$E\\|\\nabla h\\|^2$ on fresh measurements")
    axis.set_ylim(factor * rank(run) / 5, None)  # room for the legend
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


_SMALL = ["--model.net.size", "20", "--data.size", "20", "--data.rank", "1", "--trainer.max_steps", "1500000"]
_MIDDLE = ["--model.net.size", "50", "--data.size", "50", "--data.rank", "2", "--trainer.max_steps", "6000000"]
_TWO_RATES = {"small": "[5e-4, 2.5e-4]", "middle": "[1.6e-4, 8e-5]"}

FIGURE = Figure(
    name="blanc-matrix-sensing",
    title="Label noise recovers a matrix of low rank from few measurements (Blanc et al., Fig. 1)",
    config="figures/blanc-matrix-sensing.yaml",
    scales={
        "ci": Scale(
            seeds=3,
            options=[*_SMALL, "--replicas.lr", "[5e-4]"],
            arms={CONTROLS: ["--replicas.lr", _TWO_RATES["small"]]},
        ),
        "paper": Scale(
            seeds=2,
            options=["--replicas.lr", "[4e-5]"],
            arms={
                CONTROLS: [*_MIDDLE, "--replicas.lr", _TWO_RATES["middle"]],
                KEPT: [*_MIDDLE, "--replicas.lr", "[1.6e-4]"],
            },
        ),
    },
    arms={
        SENSING: ["--replicas.noise", f"[{NONE}, {STD}]"],
        CONTROLS: ["--replicas.noise", f"[{NONE}, {SMALL_STD}, {STD}]"],
        KEPT: ["--replicas.noise", f"[{NONE}]", "--data.label_std", str(STD)],
    },
    claims=_claims,
    draw=_draw,
)
