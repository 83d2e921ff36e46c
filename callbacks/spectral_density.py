"""Draws how the eigenvalues of the Hessian are distributed."""

from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lnsgd import measures, rng
from lnsgd.callbacks import pictures
from lnsgd.callbacks.measure import share_of, subjects
from lnsgd.callbacks.measurement_data import BatchLayout, DataSource, GivenData, Split, forget
from lnsgd.callbacks.per_example_loss import PerExampleLoss, per_example_loss
from lnsgd.modules.replicated import Subject
from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.checkpoint import save_safetensors
from lnsgd.writing import whole_file

# The density, and the eigenvalues that are marked in its picture.
Spectrum = tuple[measures.SpectralDensity, Tensor | None]


class SpectralDensity(Callback):
    """Draws the spectral density of the Hessian of the trained network, see `lnsgd.measures.spectral_density`.

    Once, at the end of training: the picture goes into the run's ``figures/`` and to loggers that take images, nodes
    and weights to ``spectral_density_<split>.safetensors``. In a replicated run it is drawn for the first of the
    replicas that differ in nothing but the seed. Nothing is drawn of a network that has diverged.

    Args:
        split: On which data.
        examples: Number of examples, a fixed keyed subset; ``null`` for the whole split.
        probes: As in `lnsgd.measures.spectral_density`: probes·steps Hessian products are taken, each at the cost of
            some three gradients.
        steps: The same.
        width: Of the smoothing; by default a hundredth of the spectrum's range.
        top: Number of largest eigenvalues that are marked, 0 for none.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        seed: Key of the probes.
        data: See `DataCallback`.
        batch: The same.

    Raises:
        ValueError: numbers of probes, steps or eigenvalues, or a width, that make no sense; at the end of training,
            no loss.
    """

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        probes: int = 8,
        steps: int = 50,
        width: float | None = None,
        top: int = 10,
        loss: PerExampleLoss | None = None,
        seed: int = 0,
        data: GivenData | None = None,
        batch: BatchLayout | None = None,
    ) -> None:
        for name, value, least in (("probes", probes, 1), ("steps", steps, 1), ("top", top, 0)):
            if value < least:
                raise ValueError(f"SpectralDensity: {name} = {value}; give at least {least}")
        if width is not None and not width > 0:
            raise ValueError(f"SpectralDensity: width = {width}; give a width > 0, or null for one that fits")
        self.split: Split = split
        self.examples = examples
        self.probes = probes
        self.steps = steps
        self.width = width
        self.top = top
        self.loss = loss
        self.seed = seed
        self.source = DataSource(data, batch)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of what was read."""
        forget(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures and draws the trained network."""
        # All processes must ask for the folder.
        run, chosen = RunFolder(Path(trainer.log_dir or trainer.default_root_dir)), pictures.drawn(pl_module)
        pl_module.to(trainer.strategy.root_device)  # the Trainer has moved it to the CPU already
        found = {s.replica: self.spectrum(trainer, s) for s in subjects(trainer, pl_module) if s.replica in chosen}
        pl_module.cpu()
        if not trainer.is_global_zero:
            return
        names = pictures.prefixes(pl_module, found)
        self._keep(trainer, run, {names[replica]: spectrum for replica, spectrum in found.items() if spectrum})

    def spectrum(self, trainer: Trainer, subject: Subject) -> Spectrum | None:
        """The density and the largest eigenvalues, the same on all processes; ``None`` of a network that diverged."""
        module, loss = subject.module, per_example_loss(self.loss, subject.module)
        data, share = self.source.batches(trainer, subject, self.split, self.examples), share_of(trainer)
        try:
            density = measures.spectral_density(
                module,
                loss,
                data,
                probes=self.probes,
                steps=self.steps,
                generator=rng.generator(self.seed, "probes", 0),
                share=share,
            )
            count = min(self.top, density.parameters)
            if not count:
                return density, None
            generator = rng.generator(self.seed, "probes", 1)
            top = measures.top_eigenvalues(module, loss, data, count=count, generator=generator, share=share)
        except measures.NonFiniteError as error:
            rank_zero_info(f"SpectralDensity: nothing is drawn, {error}")
            return None
        if not top.converged:
            rank_zero_info(f"SpectralDensity: the marked eigenvalues are off by up to {top.residuals.max().item():.1g}")
        return density, top.values

    def _keep(self, trainer: Trainer, run: RunFolder, spectra: Mapping[str, Spectrum]) -> None:
        tensors: dict[str, Tensor] = {}
        for name, (density, top) in spectra.items():
            tensors |= {f"{name}nodes": density.nodes, f"{name}weights": density.weights}
            figure = density.plot(top, self.width)
            pictures.save(figure, run.figures / f"spectral_density_{name.replace('/', '_')}{self.split}.png")
            pictures.send(trainer, f"spectral_density/{name}{self.split}", figure)
        if tensors:
            with whole_file(run.spectral_density(self.split)) as part:
                save_safetensors(tensors, part)
