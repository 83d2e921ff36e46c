"""Where the networks of an analysis are measured: the device, the precision, and the loaders of the data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from pytorch_lightning.utilities import rank_zero_info

from lnsgd import compat, rng
from lnsgd.analysis.checkpoints import CheckpointSet
from lnsgd.measures import Share
from lnsgd.measuring import Context, LoadedData, Measurer, Source, Split, unreadable

# Short names of precisions, as the Trainer takes them.
_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}


class AnalysisContext(Context):
    """One process that measures the networks of a checkpoint set without a Trainer.

    Args:
        module: The module of the networks. Its hooks of batch transfer are used where the data has none.
        data: The data of the networks, set up; ``None`` if every measurer brings its own.
        device: Device of the networks.
        precision: Precision plugin of the forward passes.
        together: All measurers that are taken, each with its source.
    """

    precision: Precision

    def __init__(
        self,
        module: LightningModule,
        data: LightningDataModule | None,
        device: torch.device,
        precision: Precision,
        together: Sequence[tuple[Measurer, Source]] = (),
    ) -> None:
        self.share = Share()
        self.device = device
        self.precision = precision
        self.together = together
        self.loaded = LoadedData()
        self.announced = set()
        self._module = module
        self._data = data
        self._loaders: dict[Split, Any] = {}

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values, since there is only one process."""
        return values

    def loader(self, split: Split) -> Any:
        """Return the DataLoader of the data, or else of the module; it is made at the first request.

        Raises:
            ValueError: neither has one, it cannot be made, or there are several.
        """
        if split not in self._loaders:
            self._loaders[split] = self._make_loader(split)
        return self._loaders[split]

    def _make_loader(self, split: Split) -> Any:
        hook = f"{split}_dataloader"
        owner = self._owner(hook)
        if not compat.is_overridden(hook, owner):
            raise unreadable(split, f"is missing: {type(owner).__name__} has no {hook}", "measure other splits, or ")
        try:
            with rng.preserved():
                found = getattr(owner, hook)()
        except Exception as error:  # code of the user's, which may expect more than a set-up for fitting and testing
            raise unreadable(split, f"cannot be loaded ({type(error).__name__}: {error})") from error
        if split != "train" and isinstance(found, list | tuple) and len(found) == 1:
            return found[0]
        if isinstance(found, list | tuple | dict):
            raise unreadable(split, f"is a {type(found).__name__} of {len(found)} loaders, so which one is not clear")
        return found

    def on_device(self, batch: Any) -> Any:
        """Return a batch on the device in the number format, moved by the hooks of the data or of the module.

        Raises:
            ValueError: a hook asks for the Trainer, which there is not.
        """
        batch = self._call("on_before_batch_transfer", self.precision.convert_input(batch), 0)
        batch = self._call("transfer_batch_to_device", batch, self.device, 0)
        return self._call("on_after_batch_transfer", batch, 0)

    def log_message(self, message: str) -> None:
        """Log a message through Lightning's logger."""
        rank_zero_info(message)

    def _owner(self, hook: str) -> Any:
        """Return whose hook is called: the data's if the data overrides it, else the module's."""
        return self._data if self._data is not None and compat.is_overridden(hook, self._data) else self._module

    def _call(self, hook: str, *args: Any) -> Any:
        owner = self._owner(hook)
        try:
            return getattr(owner, hook)(*args)
        except (AttributeError, RuntimeError) as error:
            if "Trainer" not in str(error) and "'NoneType' object has no attribute" not in str(error):
                raise
            raise ValueError(
                f"{hook} of {type(owner).__name__} needs a Trainer, and an analysis has none ({error}); give other data"
            ) from error


def choose_device(accelerator: str) -> torch.device:
    """Return the device to measure on.

    Args:
        accelerator: ``cpu``, ``cuda``, or ``auto`` for a CUDA GPU if there is one.

    Raises:
        ValueError: another accelerator, or no GPU where one is asked for.
    """
    if accelerator not in ("auto", "cpu", "cuda"):
        raise ValueError(f"accelerator = {accelerator}; choose auto, cpu or cuda")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator = cuda: torch sees no GPU here; use cpu or auto")
    return torch.device("cuda", 0) if accelerator != "cpu" and torch.cuda.is_available() else torch.device("cpu")


def precision_plugin(precision: Any, device: torch.device) -> Precision:
    """Return the plugin that a Trainer uses for a precision.

    Args:
        precision: Name of the precision, such as ``32-true`` or ``bf16-mixed``.
        device: Device of the networks. On the CPU ``bf16-mixed`` stands for ``16-mixed``, which CPUs do not support.

    Raises:
        ValueError: an unknown precision.
    """
    name = _PRECISIONS.get(str(precision), str(precision))
    if name == "32-true":
        return Precision()
    if name == "64-true":
        return DoublePrecision()
    if name in ("16-true", "bf16-true"):
        return HalfPrecision(name)  # type: ignore[arg-type]
    if name in ("16-mixed", "bf16-mixed"):
        return MixedPrecision("bf16-mixed" if device.type == "cpu" else name, device.type)  # type: ignore[arg-type]
    raise ValueError(
        f"trainer.precision = {precision} of the run's config is unknown; choose one of 32-true, 64-true, 16-true, "
        "bf16-true, 16-mixed, bf16-mixed"
    )


@contextmanager
def measuring_context(
    checkpoints: CheckpointSet, accelerator: str, together: Sequence[tuple[Measurer, Source]] = ()
) -> Iterator[AnalysisContext]:
    """Move the module of a checkpoint set to the device for a while, and yield the context to measure it in.

    Args:
        checkpoints: The checkpoint set; its data is set up.
        accelerator: See `choose_device`.
        together: All measurers that are taken, each with its source.

    Raises:
        ValueError: see `choose_device` and `precision_plugin`.
    """
    device = choose_device(accelerator)
    precision = precision_plugin(checkpoints.precision, device)
    try:
        move_module(checkpoints.module, device, precision)
        yield AnalysisContext(checkpoints.module, checkpoints.data, device, precision, together)
    finally:
        checkpoints.module.cpu()


def move_module(module: LightningModule, device: torch.device, precision: Precision) -> None:
    """Move a module to a device in the number format of a precision."""
    precision.convert_module(module)
    module.to(device)
