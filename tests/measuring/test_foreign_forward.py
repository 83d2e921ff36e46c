"""Networks and batches of transformers and timm, as they are, against numbers that are computed by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from lnsgd.measures import next_token_labels
from lnsgd.measuring import (
    ActiveNeuronsMeasurer,
    LargestOutputMeasurer,
    MarginMeasurer,
    PerformanceMeasurer,
    PlainContext,
    Source,
    Subject,
)

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:.*returns a .*; measured")

N, L, VOCABULARY = 10, 7, 20
CE = nn.CrossEntropyLoss(reduction="none")
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def generator():
    return torch.Generator().manual_seed(0)


def numbers_of(net, examples, measurers, batch=None, outputs=None):
    source, context = Source({"val": DataLoader(examples, 4)}, batch, outputs), PlainContext()
    return {row.name: row.value for measurer in measurers for row in measurer.take(Subject(net), source, context)}


def tokens_and(labels):
    ids = torch.randint(1, VOCABULARY, (N, L), generator=generator())
    mask = torch.ones(N, L, dtype=torch.long)
    mask[::2, -2:] = 0
    return [{"input_ids": i, "attention_mask": m, "labels": y} for i, m, y in zip(ids, mask, labels(ids, mask))]


def together(examples):
    return {key: torch.stack([example[key] for example in examples]) for key in examples[0]}


def build(kind, config, **options):
    torch.manual_seed(0)
    return kind(config(**options)).eval()


def bert(kind, **options):
    return build(kind, transformers.BertConfig, vocab_size=VOCABULARY, **SMALL, **options)


def test_sequence_classifier_with_dictionary_batches():
    net = bert(transformers.BertForSequenceClassification, num_labels=3)
    examples = tokens_and(lambda ids, mask: ids[:, 0] % 3)
    found = numbers_of(net, examples, [PerformanceMeasurer(["val"], loss=CE), LargestOutputMeasurer(["val"])])
    result = net(**together(examples))  # with labels, so that transformers computes the loss
    labels = together(examples)["labels"]
    assert found["loss/val"] == pytest.approx(result.loss.item(), rel=1e-5)
    assert found["error/val"] == pytest.approx((result.logits.argmax(1) != labels).double().mean().item())
    assert found["largest_output/val"] == pytest.approx(result.logits.abs().max().item(), rel=1e-5)


def test_token_classifier_leaves_out_ignored_tokens():
    net = bert(transformers.BertForTokenClassification, num_labels=3)
    examples = tokens_and(lambda ids, mask: (ids % 3).where(mask.bool(), -100))
    found = numbers_of(net, examples, [PerformanceMeasurer(["val"], loss=CE), MarginMeasurer(0.0, ["val"])])
    batch = together(examples)
    result, kept = net(**batch), batch["labels"] != -100
    wrong = (result.logits.argmax(-1) != batch["labels"])[kept].double().mean().item()
    assert found["loss/val"] == pytest.approx(result.loss.item(), rel=1e-5)
    assert found["error/val"] == pytest.approx(wrong)
    assert found["margin_fraction/val"] == pytest.approx(1 - wrong)


LANGUAGE_MODELS = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"n_positions": L, "n_embd": 16, "n_layer": 1, "n_head": 2}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", SMALL),
}


@pytest.mark.parametrize("given", [False, True], ids=["by-default", "batch"])
@pytest.mark.parametrize("model", LANGUAGE_MODELS)
def test_causal_language_model_predicts_the_next_token(model, given):
    kind, config, options = LANGUAGE_MODELS[model]
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}
    net = build(getattr(transformers, kind), getattr(transformers, config), **tokens, **options)
    examples = tokens_and(lambda ids, mask: ids.where(mask.bool(), -100))

    def shifted(batch):
        labels = batch.pop("labels")
        return batch, next_token_labels(labels)

    options = {"batch": shifted} if given else {}
    found = numbers_of(net, examples, [PerformanceMeasurer(["val"], loss=CE)], **options)
    batch = together(examples)
    result, labels = net(**batch), batch["labels"][:, 1:]
    wrong = (result.logits[:, :-1].argmax(-1) != labels)[labels != -100].double().mean().item()
    assert found["loss/val"] == pytest.approx(result.loss.item(), rel=1e-5)
    assert found["error/val"] == pytest.approx(wrong)


def test_image_classifier_whose_forward_gets_the_batch():
    class KeywordModule(nn.Module):
        """Passes any batch on, as many LightningModules around transformers do."""

        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, **batch):
            return self.net(**batch)

    net = build(
        transformers.ViTForImageClassification,
        transformers.ViTConfig,
        image_size=8,
        patch_size=4,
        num_labels=3,
        **SMALL,
    )
    x, y = torch.randn(N, 3, 8, 8, generator=generator()), torch.arange(N) % 3
    examples = [{"pixel_values": image, "label": label} for image, label in zip(x, y)]
    right = F.cross_entropy(net(x).logits, y).item()
    for network in (net, KeywordModule(net)):
        found = numbers_of(network, examples, [PerformanceMeasurer(["val"], loss=CE)])
        assert found["loss/val"] == pytest.approx(right, rel=1e-5)


class BatchModule(nn.Module):
    """Takes the batch and returns its loss."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, batch):
        x, y = batch
        return F.cross_entropy(self.net(x), y)


class LossModule(BatchModule):
    """Takes inputs and labels and returns the loss."""

    def forward(self, x, labels=None):
        return super().forward((x, torch.zeros(len(x), dtype=torch.long)))


def test_a_module_that_returns_its_loss_is_measured_by_outputs():
    net = BatchModule()
    x, y = torch.randn(N, 3, generator=generator()), torch.arange(N) % 2
    examples = list(zip(x, y))
    measurers = [PerformanceMeasurer(["val"], loss=CE), ActiveNeuronsMeasurer(["val"])]
    found = numbers_of(net, examples, measurers, outputs=lambda network, inputs: network.net(inputs))
    assert found["loss/val"] == pytest.approx(net((x, y)).item(), rel=1e-6)
    assert found["active_count/val/net.1"] == pytest.approx((net.net[0](x) > 0).sum(1).double().mean().item())
    with pytest.raises(
        ValueError, match=r"LossModule gives one number for 4 examples, such as their mean loss; say .*outputs="
    ):
        numbers_of(LossModule(), examples, [PerformanceMeasurer(["val"], loss=CE)])


def test_timm_network():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=3, stem_width=8, channels=(8, 8, 8, 8)).eval()
    x, y = torch.randn(N, 3, 32, 32, generator=generator()), torch.arange(N) % 3
    found = numbers_of(net, list(zip(x, y)), [PerformanceMeasurer(["val"], loss=CE)])
    assert found["loss/val"] == pytest.approx(F.cross_entropy(net(x), y).item(), rel=1e-5)
    assert found["error/val"] == pytest.approx((net(x).argmax(1) != y).double().mean().item())
