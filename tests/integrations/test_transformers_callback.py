"""`TransformersCallback` logs what `lnsgd.measure` gives, in a Trainer that trains the same without it."""

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import lnsgd
from lnsgd.integrations import TransformersCallback
from lnsgd.integrations.transformers import Layout
from lnsgd.measuring import ActiveNeuronsMeasurer, HessianTraceMeasurer
from lnsgd.records.measures import read_measures

LOSS = nn.CrossEntropyLoss(reduction="none")
BERT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
TRACE = HessianTraceMeasurer(examples=8, rtol=0.5, max_probes=16, method="hutchinson")
NAMES = ["performance", "distance_from_init", "gradient_norm"]


class Texts(Dataset):
    """Sequences of tokens, with a class or with themselves as labels."""

    def __init__(self, examples=24, tokens=6, causal=False):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1, 50, (examples, tokens), generator=generator)
        self.causal = causal

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        ids = self.ids[index]
        labels = ids if self.causal else (ids[0] > 25).long()
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def bert():
    set_seed(0)
    return BertForSequenceClassification(BertConfig(**BERT, num_labels=2))


def trainer_of(model, folder, callbacks, data=None, **options):
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "logging_steps": 100}
    quiet = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"}
    arguments = TrainingArguments(str(folder), **{**settings, **quiet, **options})
    data = data or Texts()
    return Trainer(model, arguments, train_dataset=data, eval_dataset=Texts(9, causal=data.causal), callbacks=callbacks)


def logged(trainer, name):
    return {entry["step"]: entry[name] for entry in trainer.state.log_history if name in entry}


def test_it_logs_at_the_start_after_each_epoch_and_at_the_end(tmp_path):
    callback = TransformersCallback([*NAMES, TRACE])
    model = bert()
    trainer = trainer_of(model, tmp_path, [callback])
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train()
    assert list(logged(trainer, "distance_from_init")) == [0, 3, 6]
    assert logged(trainer, "distance_from_init")[0] == 0.0
    for name in ("loss/train", "error/val", "hessian_trace/train", "hessian_trace/train/stderr"):
        assert list(logged(trainer, name)) == [0, 3, 6]

    loaders = {"train": DataLoader(Texts(), 8), "val": DataLoader(Texts(9), 8)}
    expected = lnsgd.measure(model, loaders, [*NAMES, TRACE], loss=LOSS, init=initial)
    last = callback.watch.frame().query("step == 6").reset_index(drop=True)[list(expected)]
    pd.testing.assert_frame_equal(last, expected, check_exact=True)
    rows = expected[expected["layer"] == ""].set_index(["measure", "split"])["value"]
    assert logged(trainer, "hessian_trace/train")[6] == rows["hessian_trace", "train"]
    with torch.no_grad():
        outputs = model.eval()(input_ids=Texts().ids).logits
    labels = (Texts().ids[:, 0] > 25).long()
    assert logged(trainer, "loss/train")[6] == pytest.approx(LOSS(outputs, labels).mean().item(), rel=1e-5)


def test_training_is_the_same_in_every_bit(tmp_path):
    found = []
    for callbacks in ([TransformersCallback([*NAMES, TRACE], every=2)], []):
        model = bert()
        trainer_of(model, tmp_path, callbacks, gradient_accumulation_steps=2).train()
        found.append({**model.state_dict(), "random": torch.get_rng_state()})
    assert [name for name in found[1] if not torch.equal(found[0][name], found[1][name])] == []


def test_a_language_model_is_measured_on_its_next_tokens(tmp_path):
    """The loss against the model's own, the error against a loop over the tokens; the last token has no label."""
    set_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    data = Texts(causal=True)
    chosen = ["performance", "distance_from_init", ActiveNeuronsMeasurer(["train"], layers=["*.mlp.act"])]
    trainer = trainer_of(model, tmp_path, [TransformersCallback(chosen)], data)
    trainer.train()
    with torch.no_grad():
        found = model.eval()(input_ids=data.ids, labels=data.ids)
    wrong = [
        int(scores.argmax()) != int(label)
        for text, row in zip(data.ids, found.logits)
        for label, scores in zip(text[1:], row[:-1])
    ]
    assert logged(trainer, "loss/train")[6] == pytest.approx(found.loss.item(), rel=1e-5)
    assert logged(trainer, "error/train")[6] == pytest.approx(sum(wrong) / len(wrong))
    assert "active_fraction/train/transformer.h.0.mlp.act" in trainer.state.log_history[0]


class Reporter(TrainerCallback):
    """Stands for the callback of a tracker, such as TensorBoard."""

    def __init__(self):
        self.steps = []

    def on_log(self, args, state, control, logs=None, **given):
        if "error/train" in logs:
            self.steps.append(state.global_step)


def test_trackers_get_the_numbers_at_the_step_of_the_trainer(tmp_path):
    reporter = Reporter()
    trainer_of(bert(), tmp_path, [reporter, TransformersCallback("performance", every=4)]).train()
    assert reporter.steps == [0, 4, 6]


def test_the_last_measurement_is_of_the_last_step_and_not_of_the_best_model(tmp_path):
    # At this rate the first models are the best.
    options = {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "learning_rate": 0.1,
    }
    found = []
    for load in (True, False):
        callback = TransformersCallback("weight_norms", every=100)
        trainer_of(bert(), tmp_path, [callback], load_best_model_at_end=load, **options).train()
        found.append(callback.watch.frame())
    assert found[0]["step"].unique().tolist() == [0, 6]
    pd.testing.assert_frame_equal(*found)


def test_a_resumed_training_continues_table_and_initial_weights(tmp_path):
    def run(name, **options):
        model = bert()
        callback = TransformersCallback(["distance_from_init"], every=2, out=tmp_path / name)
        return trainer_of(model, tmp_path / f"{name}-model", [callback], **options)

    run("whole").train()
    half = {"save_strategy": "steps", "save_steps": 3}
    stopped = run("resumed", **half)
    stopped.add_callback(StopAfter(4))
    stopped.train()
    run("resumed", **half).train(resume_from_checkpoint=True)
    whole, resumed = (read_measures(tmp_path / name / "measures.parquet") for name in ("whole", "resumed"))
    assert whole["step"].unique().tolist() == [0, 2, 4, 6]
    pd.testing.assert_frame_equal(resumed, whole)


class StopAfter(TrainerCallback):
    """Stops the training after a step."""

    def __init__(self, step):
        self.last = step

    def on_step_end(self, args, state, control, **given):
        control.should_training_stop = state.global_step >= self.last


def test_a_resumed_training_without_its_initial_weights_is_refused(tmp_path):
    half = {"save_strategy": "steps", "save_steps": 3}
    trainer_of(bert(), tmp_path, [], **half).train()
    with pytest.raises(ValueError, match=r"initial weights θ₀.*give init="):
        trainer_of(bert(), tmp_path, [TransformersCallback(NAMES)], num_train_epochs=4, **half).train(
            resume_from_checkpoint=True
        )


class OtherLoss(BertForSequenceClassification):
    """A model whose own loss is not the cross-entropy of its outputs."""

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        found = super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        if labels is not None:
            found.loss = 2 * found.loss
        return found


def test_a_loss_that_is_not_the_models_is_refused(tmp_path):
    set_seed(0)
    model = OtherLoss(BertConfig(**BERT, num_labels=2))
    model.loss_type = "ForSequenceClassification"
    with pytest.raises(ValueError, match=r"the cross-entropy of its outputs is .*; give a per-example loss="):
        trainer_of(model, tmp_path, [TransformersCallback("performance")]).train()
    trainer_of(model, tmp_path, [TransformersCallback("performance", loss=LOSS)]).train()


def test_labels_of_a_language_model_are_the_next_tokens():
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[5, 6, 7]]), "note": "not a tensor"}
    inputs, labels = Layout("labels", shifted=True)(batch)
    assert list(inputs) == ["input_ids"]
    assert labels.tolist() == [[6, 7, -100]]
    with pytest.raises(ValueError, match="a batch has 'input_ids', but no 'labels'"):
        Layout("labels")({"input_ids": batch["input_ids"]})
