"""Measure a BERT classifier in the Trainer of Hugging Face's transformers.

    python examples/transformers_classifier.py

The callback logs through the Trainer, so that TensorBoard, Weights & Biases or whatever it reports to gets the numbers.
The model is tiny and made from a config, so that nothing is downloaded.
"""

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

from lnsgd.integrations import TransformersCallback
from lnsgd.measuring import ActiveNeuronsMeasurer, DistanceFromInitMeasurer, HessianTraceMeasurer

# A text is 12 tokens; its class is whether the first token is in the upper half of the vocabulary.
torch.manual_seed(0)
texts = torch.randint(1, 100, (256, 12))
data = [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": int(ids[0] >= 50)} for ids in texts]

config = BertConfig(
    vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=2
)
model = BertForSequenceClassification(config)

callback = TransformersCallback(
    [
        "performance",  # loss and error on the training and the evaluation set
        DistanceFromInitMeasurer(per_tensor=False),
        ActiveNeuronsMeasurer(layers=["*intermediate_act_fn"]),  # the GELU of each block
        # The loss is the cross-entropy, as the model's own; the callback checks that they agree.
        HessianTraceMeasurer(examples=16, rtol=0.5, max_probes=16),
    ],
    every=16,
)
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, num_train_epochs=4, per_device_train_batch_size=16, learning_rate=1e-3, report_to="none",
        save_strategy="no", use_cpu=True, disable_tqdm=True, logging_steps=1_000,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data[:192], eval_dataset=data[192:], callbacks=[callback])
    trainer.remove_callback(PrinterCallback)  # which would print every number, the trace of each parameter too
    trainer.train()

shown = ["loss/train", "error/val", "hessian_trace/train", "hessian_trace/train/stderr"]
for entry in trainer.state.log_history:
    if "error/val" in entry:
        print(f"step {entry['step']:3d}", *(f"{name} {entry[name]:.3g}" for name in shown))
