"""The settings of the matrix: how a network is trained, and what its measures give at the end."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

import lnsgd
from lnsgd import callbacks
from tests.matrix.expected import CLUSTER_TOLERANCE, MARGIN, THRESHOLD, Numbers, Trained, losses
from tests.matrix.matrix_networks import BATCH_SIZE, KINDS, Kind

# The arguments of each measure; the training data is measured.
MEASURES: dict[str, dict[str, Any]] = {
    "performance": {"splits": ["train"], "loss": losses},
    "margin": {"splits": ["train"], "margin": MARGIN},
    "largest_output": {"splits": ["train"]},
    "active_neurons": {"splits": ["train"]},
    "dead_neurons": {"splits": ["train"]},
    "class_association": {"splits": ["train"], "threshold": THRESHOLD, "histograms": 0},
    "distance_from_init": {"per_tensor": False},
    "weight_norms": {},
    "singular_values": {"splits": []},
    "cluster_count": {"tolerance": CLUSTER_TOLERANCE},
    "gradient_norm": {"loss": losses, "per_tensor": False},
    "implicit_regularizer": {},
    "hessian_trace": {"loss": losses, "max_probes": 40},
    "top_eigenvalues": {"loss": losses, "rtol": 1e-6, "max_products": 1_000},
    "spectral_density": {"loss": losses, "probes": 20, "steps": 20, "top": 0},
}


class Found(NamedTuple):
    """What the measures give at the end of training.

    Attributes:
        values: Values by measure and layer.
        errors: Their standard errors; NaN for exact values.
        trained: The network.
    """

    values: Numbers
    errors: Numbers
    trained: Trained


class Setting(NamedTuple):
    """A setting.

    Attributes:
        run: Trains a network with some measures.
        kind: The network.
        dtype: Number format of the weights.
        autocast: Number format of the forward passes, if it is another.
    """

    run: Callable[[Kind, Sequence[str], Path], Found]
    kind: str = "MLP"
    dtype: torch.dtype = torch.float64
    autocast: torch.dtype | None = None


def measurers(names: Sequence[str], **options: Any) -> list[Any]:
    """Return the callbacks of some measures."""
    classes = [getattr(callbacks, lnsgd.measuring.callback_class_name(name)) for name in names]
    return [kind(**MEASURES[name], **options) for name, kind in zip(names, classes)]


def in_trainer(
    package: str = "pytorch_lightning",
    callbacks: Callable[[Any], list[Any]] = lambda package: [],
    compiled: bool = False,
    frozen: frozenset[str] = frozenset(),
    **options: Any,
) -> Callable[[Kind, Sequence[str], Path], Found]:
    """Return the setting of a Trainer of Lightning with a module that knows nothing of lnsgd.

    Args:
        package: ``pytorch_lightning`` or ``lightning.pytorch``.
        callbacks: Further callbacks, from the package.
        compiled: Whether the module compiles its network in ``setup``.
        frozen: Names of the weights of the network that are frozen at the end.
        options: Of the Trainer.
    """

    def run(kind: Kind, names: Sequence[str], folder: Path) -> Found:
        pl = importlib.import_module(package)

        class Project(pl.LightningModule):  # type: ignore[name-defined, misc]
            def __init__(self, net: nn.Module) -> None:
                super().__init__()
                self.net = net

            def setup(self, stage: str) -> None:
                if compiled:
                    self.net = torch.compile(self.net, backend="aot_eager")

            def forward(self, inputs: torch.Tensor) -> Any:
                return self.net(inputs)

            def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
                return losses(kind.outputs(self(batch[0])), batch[1]).mean()

            def on_train_epoch_end(self) -> None:
                kept.update({name: value.clone() for name, value in net.state_dict().items()})

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.1)

        net, init = made(kind)
        kept: dict[str, torch.Tensor] = {}
        trainer = pl.Trainer(
            accelerator="cpu",
            callbacks=[*callbacks(pl), *measurers(names)],
            default_root_dir=folder,
            logger=pl.loggers.CSVLogger(folder, name="", version=""),
            max_epochs=2,
            **{**QUIET, "devices": 1, **options},
        )
        trainer.fit(Project(net), kind.loader())
        if kept:  # averaging replaces the trained weights at the end; other processes keep theirs
            net.load_state_dict(kept)
        table, spectrum = folder / "measures.parquet", folder / "spectral_density_train.safetensors"
        rows = [pd.read_parquet(table)] if table.exists() else []
        if spectrum.exists():
            size = sum(p.numel() for name, p in net.named_parameters() if name not in frozen)
            rows.append(trace_of_spectrum(load_file(spectrum), size, rows[0].step.max()))
        return found_in(pd.concat(rows), Trained(kind, net, init, frozen), "net.")

    return run


def trace_of_spectrum(spectrum: Mapping[str, torch.Tensor], size: int, step: int) -> pd.DataFrame:
    """Return the trace of a Hessian of a size from the quadrature of each probe, whose weights sum to one."""
    traces = size * (spectrum["weights"] * spectrum["nodes"]).sum(1)
    stderr = traces.std().item() / len(traces) ** 0.5
    row = {"step": step, "measure": "spectrum_trace", "layer": "", "value": traces.mean().item(), "stderr": stderr}
    return pd.DataFrame([row])


QUIET = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def plain(kind: Kind, names: Sequence[str], folder: Path) -> Found:
    """Train in a plain loop and measure once at the end with `lnsgd.measure`."""
    net, init = made(kind)
    loop(kind, net)
    table = lnsgd.measure(net, kind.loader(), measures=measurers(names), init=init)
    return found_in(table, Trained(kind, net, init))


def watched(kind: Kind, names: Sequence[str], folder: Path) -> Found:
    """Train in a plain loop that tells an `lnsgd.Watch` its steps."""
    net, init = made(kind)
    watch = lnsgd.Watch(net, kind.loader(), measures=measurers(names), every=2, out=folder / "watched")
    loop(kind, net, watch.step)
    table = watch.frame()
    watch.close()
    return found_in(table, Trained(kind, net, init))


def in_transformers(kind: Kind, names: Sequence[str], folder: Path) -> Found:
    """Train in the Trainer of transformers, on batches that are dictionaries, and measure by its callback."""
    from transformers import Trainer, TrainingArguments

    from lnsgd.integrations import TransformersCallback

    net, init = made(kind)
    examples = [{"input_ids": tokens, "labels": label} for tokens, label in zip(*kind.data())]
    callback = TransformersCallback(measurers(names))
    quiet: dict[str, Any] = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"}
    arguments = TrainingArguments(str(folder), num_train_epochs=2, per_device_train_batch_size=BATCH_SIZE, **quiet)
    Trainer(net, arguments, train_dataset=examples, callbacks=[callback]).train()
    assert callback.watch is not None
    return found_in(callback.watch.frame(), Trained(kind, net, init))


def loop(kind: Kind, net: nn.Module, after_step: Callable[[int], Any] = lambda step: None) -> None:
    """Take six steps of SGD."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    step = 0
    for _ in range(2):
        for inputs, labels in kind.loader():
            optimizer.zero_grad()
            losses(kind.outputs(net(inputs)), labels).mean().backward()
            optimizer.step()
            step += 1
            after_step(step)


def made(kind: Kind) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return a network and its initial weights by name."""
    torch.manual_seed(0)
    net = kind.make()
    return net, {name: p.detach().clone() for name, p in net.named_parameters()}


def found_in(table: pd.DataFrame, trained: Trained, prefix: str = "") -> Found:
    """Return what a table holds of the last step, without totals over sites."""
    if "step" in table:
        table = table[table.step == table.step.max()]
    table = table[table.layer != "total"]
    keys = [(row.measure, row.layer.removeprefix(prefix)) for row in table.itertuples()]
    return Found(dict(zip(keys, table.value)), dict(zip(keys, table.stderr)), trained)


def fine_tuning(pl: Any) -> list[Any]:
    """Freeze the first layer, and train it from the second epoch on."""

    class Unfreeze(pl.callbacks.BaseFinetuning):  # type: ignore[name-defined, misc]
        def freeze_before_training(self, pl_module: Any) -> None:
            self.freeze(pl_module.net[0])

        def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.net[0], optimizer)

    return [Unfreeze()]


def freezing(pl: Any) -> list[Any]:
    """Freeze the first layer from the second epoch on."""

    class Freeze(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.net[0].requires_grad_(trainer.current_epoch == 0)

    return [Freeze()]


SETTINGS: dict[str, Setting] = {
    "pytorch_lightning": Setting(in_trainer()),
    "lightning": Setting(in_trainer("lightning.pytorch")),
    "`lnsgd.measure`": Setting(plain),
    "`lnsgd.Watch`": Setting(watched),
    "transformers": Setting(in_transformers, "BERT"),
    **{name: Setting(in_trainer(), name) for name in KINDS if name != "MLP"},
    "float32": Setting(in_trainer(), dtype=torch.float32),
    "bf16-mixed": Setting(in_trainer(precision="bf16-mixed"), dtype=torch.float32, autocast=torch.bfloat16),
    "2 processes": Setting(in_trainer(strategy="ddp_fork", devices=2)),
    "accumulation": Setting(in_trainer(accumulate_grad_batches=2)),
    "EMA": Setting(in_trainer(callbacks=lambda pl: [pl.callbacks.EMAWeightAveraging(decay=0.5)])),
    "fine-tuning": Setting(in_trainer(callbacks=fine_tuning)),
    "freezing": Setting(in_trainer(callbacks=freezing, frozen=frozenset({"0.weight", "0.bias"}))),
    "torch.compile": Setting(in_trainer(compiled=True)),
}
