"""Measuring in the Trainer of Hugging Face's transformers."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from lnsgd import compat, rng
from lnsgd.measures import OutputsFunction, evaluation_mode, outputs_of
from lnsgd.measuring import (
    BatchLayout,
    Measurement,
    Measurer,
    PerExampleLoss,
    Split,
    measurers_named,
    scalars,
    unwrapped,
)
from lnsgd.measuring.loaders import LoaderBatches
from lnsgd.plain import Watch
from lnsgd.plain.given import Init
from lnsgd.schedules import Schedule, at

# Losses of transformers that are a mean of cross-entropies, by the name that a model has for its loss.
_CLASSIFIERS = (
    "ForSequenceClassification",
    "ForImageClassification",
    "ForAudioClassification",
    "ForVideoClassification",
)
_CROSS_ENTROPIES = (*_CLASSIFIERS, "ForTokenClassification", "ForMaskedLM", "ForCausalLM")

# The label of tokens that do not count.
_IGNORED = -100

# Number of examples on which losses are compared.
_EXAMPLES = 4


class TransformersCallback(TrainerCallback):
    """Measure the model of a ``transformers.Trainer`` while it is trained, without changing the training in any bit.

    The numbers go into ``Trainer.log``, and from there to TensorBoard, W&B and whatever the Trainer reports to, at its
    ``global_step``. The model is measured before the first step, at the schedule, and at the end. The data is that of
    the Trainer: ``train`` is its training set, ``val`` its evaluation set, if it has one.

    Args:
        measures: Names of measures and measurers, see `lnsgd.measure`.
        every: Measure after every n-th step, or at the steps of a schedule of `lnsgd.schedules`; by default at the end
            of every epoch.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the cross-entropy, for models whose own loss is
            one. Whether it agrees with the model's loss is checked on the first examples.
        init: Initial weights θ₀, if they are not those at the start of the training, see `lnsgd.measure`.
        batch: Function from a batch to inputs and labels; by default the labels are the entry ``labels`` and the inputs
            all other tensors. The labels of a causal language model are shifted: that of a token is the next token.
        outputs: How the model is called, see `lnsgd.measures.outputs_of`; by default its ``logits`` are taken.
        out: Folder for ``measures.parquet``, see `lnsgd.Watch`; a training that is resumed continues it.
        trainer: The Trainer; by default the one that calls the callback.

    Attributes:
        watch: The watch that measures, from the start of the training on.

    Raises:
        ValueError: at the start of the training, what `lnsgd.Watch` refuses; a model whose loss is not known, or is not
            the given one.

    Example:
        ``Trainer(model, args, train_dataset=data, callbacks=[TransformersCallback(["active_neurons"], every=100)])``
    """

    def __init__(
        self,
        measures: str | Measurer | Sequence[str | Measurer],
        every: int | Schedule | None = None,
        *,
        loss: PerExampleLoss | None = None,
        init: Init | None = None,
        batch: BatchLayout | None = None,
        outputs: OutputsFunction | None = None,
        out: str | PathLike[str] | None = None,
        trainer: Any = None,
    ) -> None:
        self.measures = measures
        self.every = every
        self.loss = loss
        self.init = init
        self.batch = batch
        self.outputs = outputs
        self.out = out
        self.trainer = trainer
        self.watch: Watch | None = None
        self._trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure the model as it is before the first step; a training that is resumed was measured before."""
        trainer = self._trainer = self.trainer or compat.calling_transformers_trainer()
        model, loader = unwrapped(given["model"]), given["train_dataloader"]
        if state.global_step > 0:
            self._check_init()
        batch = self.batch or Layout(_label_name(trainer), _loss_type(model) == "ForCausalLM")
        loss, of_loss = self.loss, [m for m in measurers_named(self.measures) if hasattr(m, "loss")]
        if loss is None and any(m.loss is None for m in of_loss) and _is_cross_entropy(model, trainer):
            loss = nn.CrossEntropyLoss(reduction="none", ignore_index=_IGNORED)
            if self.batch is None and self.outputs is None:
                check_loss(model, loader, batch)
        self.watch = Watch(
            model,
            {"train": loader, **_validation(trainer)},
            self.measures,
            every=at([]) if self.every is None else self.every,
            out=self.out,
            resume=state.global_step > 0 and self.out is not None,
            start=state.global_step,
            loss=loss,
            init=self.init,
            batch=batch,
            outputs=self.outputs,
        )
        self._log(self.watch.latest)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure if this is due, and after the last step."""
        assert self.watch is not None
        found = self.watch.step(state.global_step, int(state.epoch or 0))
        is_last = state.global_step >= state.max_steps or control.should_training_stop
        self._log(self.watch.measure() if is_last and not found else found)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure, unless there is a schedule."""
        assert self.watch is not None
        if self.every is None:
            self._log(self.watch.measure())

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure the model if the training was stopped early; not if the best one has been loaded meanwhile."""
        assert self.watch is not None
        self._log(self.watch.close(final=not args.load_best_model_at_end))

    def _check_init(self) -> None:
        """Check on resume that the initial weights are known, if a measure needs them."""
        needing = [measurer for measurer in measurers_named(self.measures) if measurer.needs_init]
        if needing and self.init is None and self.out is None:
            raise ValueError(
                f"{type(needing[0]).__name__}: the training is resumed, so its initial weights θ₀ are not those of the "
                "model now; give init=, or out= from the beginning of the training on"
            )

    def _log(self, found: list[Measurement]) -> None:
        if found:
            self._trainer.log(scalars(found))


class Layout:
    """Where a batch of transformers has inputs and labels.

    Args:
        labels: Name of the entry of the labels; all other tensors are inputs.
        shifted: Whether the label of a token is the next token, as in causal language models.
    """

    def __init__(self, labels: str, shifted: bool = False) -> None:
        self.labels = labels
        self.shifted = shifted

    def __call__(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs by name, and labels.

        Raises:
            ValueError: there are no labels.
        """
        if self.labels not in batch:
            raise ValueError(
                f"a batch has {', '.join(map(repr, batch))}, but no {self.labels!r}; say where the labels are, such as "
                "batch=lambda batch: ({'input_ids': batch['input_ids']}, batch['label'])"
            )
        inputs = {name: value for name, value in batch.items() if name != self.labels and isinstance(value, Tensor)}
        labels = batch[self.labels]
        if self.shifted:
            labels = nn.functional.pad(labels[..., 1:], (0, 1), value=_IGNORED)
        return inputs, labels


def check_loss(model: nn.Module, loader: Any, layout: Callable[[Any], tuple[Any, Tensor]]) -> None:
    """Check on a few examples that the model's own loss is the cross-entropy of its outputs.

    Args:
        model: A model of transformers, which returns a loss if it is called with labels.
        loader: DataLoader of the examples.
        layout: Function from a batch to inputs and labels.

    Raises:
        ValueError: the two losses differ.
    """
    device = next(model.parameters()).device
    batch, _ = next(iter(LoaderBatches(loader, "train", _EXAMPLES)))
    batch = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    inputs, labels = layout(batch)
    with torch.no_grad(), evaluation_mode(model):
        own = model(**batch).loss
        outputs = outputs_of(model, inputs)
    found = nn.functional.cross_entropy(outputs.flatten(0, -2).float(), labels.flatten(), ignore_index=_IGNORED)
    if own is None or not torch.isclose(own.float(), found, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise ValueError(
            f"the loss of {type(model).__name__} on {_EXAMPLES} examples is {own}, but the cross-entropy of its "
            f"outputs is {found.item():g}; give a per-example loss="
        )


def _is_cross_entropy(model: nn.Module, trainer: Any) -> bool:
    """Return whether the Trainer minimizes a mean of cross-entropies, as far as the model and its config say so."""
    config = getattr(model, "config", None)
    if trainer.compute_loss_func is not None or _loss_type(model) not in _CROSS_ENTROPIES:
        return False
    problem = getattr(config, "problem_type", None)
    classifies = _loss_type(model) not in _CLASSIFIERS or getattr(config, "num_labels", 0) > 1
    return classifies and problem in (None, "single_label_classification")


def _loss_type(model: nn.Module) -> str | None:
    """Return the name of a model's loss; one without a name is that of a causal language model, as in transformers."""
    return getattr(model, "loss_type", None) or ("ForCausalLM" if hasattr(model, "loss_function") else None)


def _label_name(trainer: Any) -> str:
    names = trainer.label_names
    return names[0] if len(names) == 1 else "labels"


def _validation(trainer: Any) -> dict[Split, Any]:
    """Return the loader of the evaluation set, if there is one set."""
    if trainer.eval_dataset is None or isinstance(trainer.eval_dataset, Mapping):
        return {}
    with rng.preserved():
        return {"val": trainer.get_eval_dataloader()}
