"""List what the GPU kit runs, in which order, and for how many minutes at most."""

import sys
from dataclasses import dataclass
from typing import Literal, get_args

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)

# What a stage leaves: a JSON object on stdout, a report of pytest, or the folder of a figure.
Result = Literal["json", "tests", "figure"]

# In a command: the folder of the stage's own files.
FOLDER = "{folder}"


@dataclass(frozen=True)
class Stage:
    """One command of the kit.

    Attributes:
        name: Short name, unique in the plan.
        question: What the stage finds out, for the summary.
        command: The command and its arguments; ``{folder}`` is replaced by the folder of the stage's own files.
        minutes: Minutes after which the command is ended.
        result: What the command leaves.
        resumes: Whether the same command continues where it was stopped. A stage that does not resume is begun only
            if there is time for all of its minutes.
    """

    name: str
    question: str
    command: tuple[str, ...]
    minutes: float
    result: Result = "json"
    resumes: bool = False


@dataclass(frozen=True)
class _Work:
    """A stage at both sizes.

    Attributes:
        name: See `Stage`.
        question: See `Stage`.
        command: What both sizes have in common, without the Python interpreter.
        full: Further arguments on CUDA.
        rehearsal: Further arguments on a CPU, where the stage shows only that it runs.
        minutes: Limits on CUDA and on a CPU.
        result: See `Stage`.
        resumes: See `Stage`.
    """

    name: str
    question: str
    command: tuple[str, ...]
    full: tuple[str, ...]
    rehearsal: tuple[str, ...]
    minutes: tuple[float, float]
    result: Result = "json"
    resumes: bool = False

    def on(self, device: Device) -> Stage:
        """Return the stage for a device."""
        on_cuda = device == "cuda"
        command = (sys.executable, *self.command, *(self.full if on_cuda else self.rehearsal))
        minutes = self.minutes[0] if on_cuda else self.minutes[1]
        return Stage(self.name, self.question, command, minutes, self.result, self.resumes)


def _benchmark(
    script: str,
    question: str,
    full: tuple[str, ...] = (),
    rehearsal: tuple[str, ...] = (),
    minutes: tuple[float, float] = (4, 4),
    name: str | None = None,
) -> _Work:
    """Return the stage of a script in ``scripts/benchmarks``."""
    command = (f"scripts/benchmarks/{script}.py",)
    on_cuda, on_cpu = ("--device", "cuda", *full), ("--device", "cpu", *rehearsal)
    return _Work(name or script.replace("_", "-"), question, command, on_cuda, on_cpu, minutes)


def _figure(figure: str, question: str, scale: str, minutes: tuple[float, float]) -> _Work:
    """Return the stage of a figure, which is rehearsed at scale ``ci`` with one seed."""
    command = ("-m", "lnsgd", "reproduce", figure, "--out", FOLDER)
    full, rehearsal = ("--scale", scale), ("--scale", "ci", "--seeds", "1")
    return _Work(figure, question, command, full, rehearsal, minutes, "figure", resumes=True)


# The most valuable first: whether everything is right on CUDA, then how fast it is, then what takes hours.
_WORK = (
    _Work("machine", "Which machine is this?", ("-m", "scripts.gpu.machine"), (), (), (1, 1)),
    _Work(
        "tests",
        "Are the results those of plain computations on the CPU?",
        ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu", f"--junitxml={FOLDER}/tests.xml"),
        ("-m", "gpu"),
        ("-m", "not gpu and not slow"),
        (7, 5),
        "tests",
    ),
    _benchmark(
        "replicas",
        "How fast are the steps of many replicas, compared with JAX and an eager loop?",
        rehearsal=("--quick", "--only", "a", "--replicas", "4"),
        minutes=(5, 8),
    ),
    _benchmark(
        "cifar10_epoch",
        "How long is an epoch of ResNet-20, compared with a hand-written loop and a DataLoader?",
        full=("--rounds", "1"),
        rehearsal=("--images", "256", "--rounds", "1", "--workers", "1"),
        minutes=(5, 5),
    ),
    _benchmark(
        "cifar10_epoch",
        "The same in bfloat16, with channels last and CUDA graphs: how long is an epoch?",
        full=("--rounds", "1", *("--precision", "bf16-mixed", "--channels-last", "--compile-mode", "reduce-overhead")),
        rehearsal=("--images", "256", "--rounds", "1", "--workers", "1", "--precision", "bf16-mixed"),
        minutes=(6, 5),
        name="cifar10-epoch-fast",
    ),
    _benchmark(
        "hessian_trace",
        "How long does a Hessian trace to 2 % take, compared with PyHessian and curvlinops?",
        rehearsal=("--nets", "mlp", "--images", "100", "--probes", "2"),
    ),
    _benchmark(
        "callback_overhead",
        "What do the measures cost along training?",
        rehearsal=("--nets", "mlp", "--epochs", "2", "--images", "1000"),
        minutes=(6, 5),
    ),
    _benchmark(
        "mnist_epoch",
        "How long is an epoch of an MLP, compared with a hand-written loop?",
        rehearsal=("--images", "2000", "--rounds", "1"),
    ),
    _benchmark(
        "checks_before_measuring",
        "What do the checks before a measure cost?",
        rehearsal=("--epochs", "1", "--rounds", "1"),
    ),
    _benchmark(
        "stopped_replicas",
        "How much faster is a step when some replicas were stopped?",
        rehearsal=("--quick", "--replicas", "4", "--width", "16"),
        minutes=(5, 5),
    ),
    _figure(
        "cornacchia-cifar10",
        "Does label smoothing, or label noise, make a ResNet-20 sparse where it is deep? (3 arms, 3 seeds)",
        "paper",
        (600, 5),
    ),
    _figure("nagarajan-width", "How does the distance grow with the width, up to large networks?", "full", (600, 5)),
    _figure("nagarajan-norms", "How do the norms of weight matrices grow with the width?", "full", (600, 5)),
    _figure("nagarajan-noise", "How does the distance grow with the part of random labels?", "full", (600, 5)),
)


def stages(device: Device) -> list[Stage]:
    """Return the stages for a device in the order in which they are run.

    On CUDA they have their full size. On a CPU each is a rehearsal: the same command at a size of seconds or minutes.

    Args:
        device: The device.
    """
    return [work.on(device) for work in _WORK]
