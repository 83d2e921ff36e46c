"""Callbacks that keep tensors of the trained network and draw them."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lnsgd.callbacks.base.measuring import MeasuringCallback, WithData, subjects_of
from lnsgd.callbacks.base.overhead import Overhead, announced
from lnsgd.callbacks.base.pictures import save_picture, send_picture
from lnsgd.callbacks.base.run_folder import run_folder
from lnsgd.measuring import AVERAGED, Context, Picture, Source, Subject
from lnsgd.records.measures import WEIGHTS
from lnsgd.replicas import networks_of
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.checkpoint import save_safetensors


class FinalTensors(MeasuringCallback):
    """Base of the callbacks that keep ``tensors`` of the trained network and draw them.

    Once, at the end of training, of the weights that were trained, or of what has replaced them for good, such as the
    averages of ``StochasticWeightAveraging``; the metadata of the file say which. The tensors go into a file of the
    run's folder, the pictures into its ``figures/`` and to loggers that take images. In a replicated run, pictures are
    drawn of the first of the replicas that differ only in the seed.

    Attributes:
        keeps_all_replicas: Whether the tensors of all replicas are kept, or of those alone that are drawn.
        keeps_averages: Whether the tensors of averages that are kept beside the trained weights are taken too. Their
            files and names in loggers begin with ``averaged``.
    """

    keeps_all_replicas: ClassVar[bool] = False
    keeps_averages: bool = False

    @abstractmethod
    def file(self, run: RunFolder) -> Path:
        """Return the file for the tensors."""

    def kept(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors that go into the file, by their names there; by default all."""
        return dict(tensors)

    def affordable(self, pictures: Iterable[Picture]) -> Iterable[Picture]:
        """Return the pictures for which there is time; by default all."""
        return pictures

    def can_be_taken(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Return whether there is time to take the tensors at all, the same on all processes; by default there is."""
        return True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep and draw the tensors of the trained network, and of the averages if they are asked for."""
        run, which = run_folder(trainer), self.which_weights(trainer, pl_module)
        pl_module.to(trainer.strategy.root_device)  # the Trainer has moved it to the CPU already
        found = {}
        with which.final() as weights:
            if can_be_taken := self.can_be_taken(trainer, pl_module):
                found[weights] = self._take_final(trainer, pl_module)
        if can_be_taken and self.keeps_averages:
            with which.averaged():
                found[AVERAGED] = self._take_final(trainer, pl_module)
        pl_module.cpu()
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for weights, tensors in found.items():
            self._keep(trainer, pl_module, run, tensors, weights)

    def _take_final(self, trainer: Trainer, module: LightningModule) -> dict[int, dict[str, Tensor]]:
        """Return the tensors by replica, of the weights that the module holds."""
        context, drawn = self.context(trainer), networks_of(module).representatives
        # Callbacks may have put other weights in at the end, such as averages: what was found before does not count.
        with announced(type(self).__name__, trainer.global_step, context):
            return {
                subject.replica: self.take_tensors(subject, self.source, context)
                for subject in subjects_of(trainer, module)
                if self.keeps_all_replicas or subject.replica in drawn
            }

    def _keep(
        self,
        trainer: Trainer,
        module: LightningModule,
        run: RunFolder,
        found: Mapping[int, Mapping[str, Tensor]],
        weights: str,
    ) -> None:
        """Write tensors by replica into the file, and draw and send the pictures."""
        networks = networks_of(module)
        # Averages that are kept beside the trained weights get names of their own, as in loggers.
        is_beside = weights == AVERAGED and self.keeps_averages
        kept = {
            networks.prefix(r) + name: of for r, tensors in found.items() for name, of in self.kept(tensors).items()
        }
        if kept:
            path = self.file(run)
            with whole_file(path.with_name(f"{weights}_{path.name}") if is_beside else path) as part:
                save_safetensors(kept, part, about={WEIGHTS: weights})
        for replica in networks.representatives:
            prefix = networks.prefix(replica)
            for picture in self.affordable(self.pictures(found[replica])):
                file = f"{picture.group.split('/')[0]}_{prefix}{picture.name}".replace("/", "_")
                if is_beside:
                    file, picture = f"{weights}_{file}", picture._replace(group=f"{weights}/{picture.group}")
                save_picture(picture.figure, run.figures / f"{file}.png")
                send_picture(trainer, picture.named(prefix), picture.figure)


class LimitedFinalTensors(WithData, FinalTensors):
    """Base of the callbacks that take tensors of the trained network on data, at a cost that can be limited.

    Args:
        max_overhead: Leave the tensors out, and say so, if they would take more than this fraction of the training
            time, as `expected_seconds` tells; ``null`` for no limit.
        averaged: Take the tensors of the averaged weights of Lightning's ``WeightAveraging`` too.
        options: Data and layout of batches, see `WithData`.

    Raises:
        ValueError: an overhead that is not positive; in training, ``averaged`` without averaging.
    """

    def __init__(self, max_overhead: float | None = None, averaged: bool | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.keeps_averages = bool(averaged)
        self._overhead = Overhead(type(self).__name__, max_overhead)

    @abstractmethod
    def expected_seconds(self, subject: Subject, source: Source, context: Context) -> float:
        """Return about how long it takes to take the tensors of a network, which a part of the work shows."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there are averages if they are asked for, and start the clock of the training time."""
        which = self.which_weights(trainer, pl_module)
        if self.keeps_averages:
            which.check_averaged(type(self).__name__)
        which.announce()
        self._overhead.start()

    def can_be_taken(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Return whether the tensors of all networks can be taken within ``max_overhead``."""
        subject = next(iter(subjects_of(trainer, pl_module)), None)
        if self._overhead.limit is None or subject is None:
            return True
        context, networks = self.context(trainer), networks_of(pl_module)
        announced_before = set(context.announced)
        seconds = self.expected_seconds(subject, self.source, context)
        context.announced.intersection_update(announced_before)  # what was announced is of a part alone
        seconds *= len(networks.representatives) * (1 + self.keeps_averages)
        # The clock of one process decides for all, for they must all measure or none.
        if trainer.strategy.broadcast(self._overhead.allows(seconds)):
            return True
        self._overhead.report_left_out(seconds)
        return False
