"""Callbacks that measure neurons: how often each unit of an activation site fires."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lnsgd.callbacks.base import ActivationCallback, DataCallback, FinalTensors
from lnsgd.measuring import (
    ActiveNeuronsMeasurer,
    ClassAssociationMeasurer,
    DeadNeuronsMeasurer,
    HiddenUnitsMeasurer,
    Picture,
)
from lnsgd.runs.folder import RunFolder


class ActiveNeurons(ActiveNeuronsMeasurer, ActivationCallback):
    """Log the typical number of active neurons of every activation site, see `lnsgd.measures.active_count`.

    Logs ``active_count/<split>/<layer>`` and ``active_fraction/<split>/<layer>``. Loggers that take histograms get
    ``firing_rate/<split>/<layer>`` too, how often each neuron fires; in a replicated run for the first of the replicas
    that differ only in the seed. For the arguments see `lnsgd.measuring.ActivationMeasurer`.
    """


class DeadNeurons(DeadNeuronsMeasurer, ActivationCallback):
    """Log ``dead_count/<split>/<layer>`` and ``dead_fraction/<split>/<layer>``, see `lnsgd.measures.dead_count`.

    For the arguments see `lnsgd.measuring.ActivationMeasurer`.
    """


class ClassAssociation(ClassAssociationMeasurer, ActivationCallback, FinalTensors):
    """Log the class-associated neurons of every activation site, see `lnsgd.measures.associated_count`.

    Logs ``associated_count/<split>/<layer>`` and ``associated_fraction/<split>/<layer>``. At the end of training the
    firings of each site on the first split go into ``firings.safetensors``. If ``histograms`` asks for them, their
    pictures go into the run's ``figures/`` and to loggers that take images, as many as ``max_overhead`` allows. For the
    arguments see `lnsgd.measuring.ClassAssociationMeasurer`.
    """

    keeps_all_replicas = True

    def file(self, run: RunFolder) -> Path:
        """Return ``firings.safetensors``."""
        return run.firings

    def affordable(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Yield pictures one by one until they and all measurements together have taken ``max_overhead``."""
        pictures = iter(pictures)
        for number in count(1):
            if not self._overhead.is_kept:
                rank_zero_info(f"ClassAssociation: only {number - 1} pictures are drawn, to keep max_overhead")
                return
            with self._overhead.measuring():  # what is done with the picture counts too
                picture = next(pictures, None)
                if picture is None:
                    return
                yield picture

    def kept(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the firings by layer."""
        return {name.removesuffix("/fired"): of for name, of in tensors.items() if name.endswith("/fired")}


class HiddenUnits(HiddenUnitsMeasurer, DataCallback):
    """Log ``activation``, its mean over the training set, and ``output_weight`` of every hidden unit.

    For networks with one hidden layer and one output only, see `lnsgd.measuring.HiddenUnitsMeasurer`; for the
    arguments see `lnsgd.callbacks.base.DataCallback`.
    """
