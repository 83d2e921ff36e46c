"""Label noise recovers a matrix of low rank from few measurements: Blanc et al., Fig. 1.

UUᵀ is fitted to X* = U*U*ᵀ (d × d, rank r) on n = 5dr measurements ⟨A, X*⟩, from U = I, by SGD with batches of one on
(⟨A, UUᵀ⟩ − y)². Many matrices fit. Among them noise of variance Var moves U along −∇R in slow time η²·Var·steps, to
first order in η, with R = E‖∇h‖² = 2(d + 1)‖U‖²_F, which is 2(d + 1) times the nuclear norm of UUᵀ. X* has a small
nuclear norm.

Two arms are controls, at scale ``paper`` with a smaller matrix (d = 50, r = 2, n = 500, η = 1.6·10⁻⁴): other noise
levels and half the step size; and noise that is drawn once for each measurement and then kept. In a third arm, of the
same size, U starts with independent Gaussian entries of variance 1/d, so that UUᵀ is the identity on average.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import LogLocator, NullFormatter

from lnsgd.figures.blanc.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.configs import read_setting, shipped_config
from lnsgd.figures.framework.figure import Figure, Runs, Scale, Variant
from lnsgd.figures.framework.results import Curves, measured, replicas
from lnsgd.figures.framework.style import BLUE, GREEN, GREY, ORANGE, PURPLE, draw_geometric_band, plain
from lnsgd.runs.folder import RunFolder

SENSING, CONTROLS, KEPT = "label noise", "other levels and steps", "noise kept"
GAUSSIAN = "Gaussian start"

# Standard deviations of the noise. The config's gives a variance of 0.1; the small one is 0.1 itself.
CONFIG = "figures/blanc-matrix-sensing.yaml"
STD, SMALL_STD, NONE = read_setting(shipped_config(CONFIG), "model.label_noise.std"), 0.1, 0.0
# Stands for the largest level of a run, which a reading may change.
LARGEST = None
COLORS = {NONE: BLUE, STD: ORANGE}
LABELS = {NONE: "no noise", STD: "label noise N(0, 0.1)"}

# Fractions of the initial error: up to GONE it counts as zero, from LARGE on as large.
GONE, LARGE = 0.01, 0.1


def select_level(run: RunFolder, curves: Curves, noise: float | None, rate: int = 0) -> Curves:
    """Select the curves of a run at one noise level, with a row for each seed.

    Args:
        run: The run.
        curves: The curves of all its replicas.
        noise: Standard deviation of the noise, or `LARGEST`.
        rate: Index of the step size, the largest first.
    """
    table = replicas(run)
    rates = np.sort(table["lr"].unique())[::-1]
    level = table["noise"].max() if noise is LARGEST else noise
    return curves._replace(values=curves.values[np.isclose(table["noise"], level) & (table["lr"] == rates[rate])])


def train_error(run: RunFolder, noise: float | None, rate: int = 0) -> Curves:
    """Return the mean squared error on the measurements, without noise; see `select_level`."""
    return select_level(run, measured(run, "loss", "train"), noise, rate)


def recovery(run: RunFolder, noise: float | None, rate: int = 0) -> Curves:
    """Return ‖UUᵀ − X*‖²_F; see `select_level`."""
    return select_level(run, measured(run, "recovery_error"), noise, rate)


def nuclear_norm(run: RunFolder, noise: float | None) -> Curves:
    """Return the nuclear norm of UUᵀ, which is ‖U‖²_F; see `select_level`."""
    norms = select_level(run, measured(run, "norm", layer="net.factor"), noise)
    return norms._replace(values=norms.values**2)


def regularizer(run: RunFolder, noise: float | None) -> Curves:
    """Return the mean ‖∇h‖² on measurements that were not trained on; see `select_level`."""
    return select_level(run, measured(run, "implicit_regularizer", "test"), noise)


def size(run: RunFolder) -> int:
    """Return the size d of the matrices."""
    return int(read_setting(run.config, "data.size"))


def rank(run: RunFolder) -> int:
    """Return the rank r of X*, which is also its nuclear norm."""
    return int(read_setting(run.config, "data.rank"))


def remaining_error(error: Curves) -> np.ndarray:
    """Return the last error as a fraction of the first, (R,)."""
    return error.last / error.values[:, 0]


def steps_below(error: Curves, level: np.ndarray) -> np.ndarray:
    """Return the step at which each replica's error first falls below its level (R,), or NaN.

    The step is interpolated between measurements, linearly on logarithmic axes.
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
    return [
        *_judge_errors(runs[SENSING]),
        *_judge_theory(runs[SENSING]),
        *_judge_gaussian(runs[GAUSSIAN]),
        *_judge_controls(runs[CONTROLS], runs[KEPT]),
    ]


def _judge_errors(run: RunFolder) -> list[Claim]:
    """Judge the paper's figure."""
    end = f"at step {measured(run, 'recovery_error').steps[-1]:,}, in parts of that at U = I; d = {size(run)}"
    noisy, clean = train_error(run, LARGEST), train_error(run, NONE)
    fitted = [steps_below(error, GONE * error.values[:, 0]) / error.steps[-1] for error in (noisy, clean)]
    return [
        judge(
            "clean-train",
            f"train error without noise goes to 0 ({end})",
            STATEMENTS["sensing-train"],
            paper="→ 0",
            measured=remaining_error(clean),
            high=GONE,
        ),
        judge(
            "noisy-train",
            f"train error with noise goes to 0 ({end})",
            STATEMENTS["sensing-train"],
            paper="→ 0",
            measured=remaining_error(noisy),
            high=GONE,
        ),
        judge(
            "quickly",
            "quickly in both: step at which a hundredth of it is left, in parts of the run (the later of both arms)",
            STATEMENTS["sensing-train"],
            paper="quickly",
            measured=np.maximum(*fitted),
            high=0.01,
        ),
        judge(
            "clean-test",
            f"test error ‖UUᵀ − X*‖² without noise stays large ({end})",
            STATEMENTS["sensing-plateau"],
            paper="large",
            measured=remaining_error(recovery(run, NONE)),
            low=LARGE,
        ),
        judge(
            "noisy-test",
            f"test error with noise goes to 0 ({end})",
            STATEMENTS["sensing-recovers"],
            paper="→ 0",
            measured=remaining_error(recovery(run, LARGEST)),
            high=GONE,
        ),
    ]


def _judge_theory(run: RunFolder) -> list[Claim]:
    """Judge the closed forms of the regularizer, the nuclear norm and the train error with noise."""
    factor = 2 * (size(run) + 1)
    found = [regularizer(run, noise).last / (factor * nuclear_norm(run, noise).last) for noise in (LARGEST, NONE)]
    norm, table = nuclear_norm(run, LARGEST).last, replicas(run)
    floor = factor * norm * table["lr"].max() * table["noise"].max() ** 2
    return [
        judge(
            "regularizer",
            "E‖∇h‖² over 2(d + 1) times the nuclear norm of UUᵀ, in the end, mean of both arms (fresh measurements)",
            STATEMENTS["sensing-regularizer"],
            paper=1.0,
            measured=np.mean(found, axis=0),
            low=0.95,
            high=1.05,
        ),
        judge(
            "nuclear-norm",
            "with noise the nuclear norm falls to that of X* (ratio in the end)",
            STATEMENTS["sensing-nuclear"],
            paper=1.0,
            measured=norm / rank(run),
            low=0.9,
            high=1.1,
        ),
        judge(
            "floor",
            "train error with noise in the end over 2(d + 1)·‖U‖²·η·Var",
            CONTROL,
            source="derived: stationary SGD on a quadratic, to first order in η",
            paper=1.0,
            measured=train_error(run, LARGEST).last / floor,
            low=0.5,
            high=2.0,
        ),
    ]


def _judge_gaussian(run: RunFolder) -> list[Claim]:
    end = f"d = {size(run)}, step {measured(run, 'recovery_error').steps[-1]:,}, in parts of that at the start"
    return [
        judge(
            "gaussian-noisy-test",
            f"Gaussian U₀: test error with noise goes to 0 ({end})",
            STATEMENTS["sensing-gaussian"],
            paper="→ 0",
            measured=remaining_error(recovery(run, LARGEST)),
            high=GONE,
        ),
        judge(
            "gaussian-clean-test",
            f"Gaussian U₀: test error without noise stays large ({end})",
            STATEMENTS["sensing-gaussian"],
            paper="large",
            measured=remaining_error(recovery(run, NONE)),
            low=LARGE,
        ),
    ]


def _judge_controls(run: RunFolder, kept: RunFolder) -> list[Claim]:
    where = f"d = {size(run)}, step {measured(run, 'recovery_error').steps[-1]:,}"
    # Half of the error at the same step size, because a larger step leaves a smaller test error even without noise.
    fast, slow = (steps_below(recovery(run, STD, rate), recovery(run, NONE, rate).last / 2) for rate in (0, 1))
    return [
        judge(
            "time-scale",
            f"time scale ∝ 1/η²: steps until half of the test error left without noise, η/2 over η (d = {size(run)})",
            STATEMENTS["sensing-time"],
            paper=4.0,
            measured=slow / fast,
            low=2**1.5,
            high=2**2.5,
        ),
        judge(
            "control-std",
            f"control: noise of std 0.1 recovers far less (test error over that of variance 0.1; {where})",
            CONTROL,
            source="chosen",
            paper="far less",
            measured=recovery(run, SMALL_STD).last / recovery(run, STD).last,
            low=3.0,
        ),
        judge(
            "control-kept",
            f"control: noise of variance 0.1 drawn once and kept recovers nothing (test error left; {where})",
            CONTROL,
            source="chosen",
            paper="large",
            measured=remaining_error(recovery(kept, NONE)),
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
    """Draw curves without the initial value, which a logarithmic axis cannot show."""
    later = curves.steps > 0
    draw_geometric_band(axis, curves.steps[later] * unit, curves.values[:, later], color, label, **line)


def _draw_controls(axis: Axes, run: RunFolder, kept: RunFolder) -> None:
    """Draw test errors over η²·steps, where runs of one variance lie on one curve if η is small."""
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
_GAUSSIAN = ["--model.net.init", "gaussian"]
_READ_AS_STD = {arm: ["--replicas.noise", f"[{NONE}, {SMALL_STD}]"] for arm in (SENSING, GAUSSIAN)}
_TWO_RATES = {"small": "[5e-4, 2.5e-4]", "middle": "[1.6e-4, 8e-5]"}

FIGURE = Figure(
    name="blanc-matrix-sensing",
    title="Label noise recovers a matrix of low rank from few measurements (Blanc et al., Fig. 1)",
    config=CONFIG,
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
                GAUSSIAN: [*_MIDDLE, "--replicas.lr", "[1.6e-4]"],
            },
        ),
    },
    arms={
        SENSING: ["--replicas.noise", f"[{NONE}, {STD}]"],
        CONTROLS: ["--replicas.noise", f"[{NONE}, {SMALL_STD}, {STD}]"],
        KEPT: ["--replicas.noise", f"[{NONE}]", "--data.label_std", str(STD)],
        GAUSSIAN: ["--replicas.noise", f"[{NONE}, {STD}]", *_GAUSSIAN],
    },
    claims=_claims,
    draw=_draw,
    variants={
        "Gaussian U₀": Variant("U starts with entries N(0, 1/d) instead of the identity", options=_GAUSSIAN),
        "std 0.1": Variant("0.1 of N(0, 0.1) is the standard deviation, not the variance", arms=_READ_AS_STD),
        "Gaussian U₀, std 0.1": Variant("both", options=_GAUSSIAN, arms=_READ_AS_STD),
    },
    central=["noisy-train", "clean-test", "noisy-test", "quickly", "nuclear-norm", "time-scale"],
)
