"""The networks of the matrix: each small enough for a dense Hessian, with its data and its sites named by hand."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 3
EXAMPLES = 24
BATCH_SIZE = 8


class Kind(NamedTuple):
    """A kind of network.

    Attributes:
        make: Makes the network.
        inputs: Makes the inputs of some examples.
        sites: Names of the modules whose inputs are pre-activations.
        outputs: From what the network returns to outputs (B, …).
        token_classes: Number of classes of each token; ``None`` if an example has one label.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], Tensor]
    sites: tuple[str, ...]
    outputs: Callable[[object], Tensor] = lambda returned: returned
    token_classes: int | None = None

    def data(self) -> tuple[Tensor, Tensor]:
        """Return the inputs and labels that the network is trained and measured on."""
        generator = torch.Generator().manual_seed(3)
        inputs = self.inputs(EXAMPLES, generator)
        if self.token_classes is not None:
            return inputs, inputs.roll(-1, 1)
        return inputs, torch.randint(CLASSES, (EXAMPLES,), generator=generator)

    def loader(self) -> DataLoader:
        """Return a DataLoader of the data, in sequence."""
        return DataLoader(TensorDataset(*self.data()), BATCH_SIZE)


class LastState(nn.Module):
    """An LSTM with a ReLU on its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.relu, self.head = nn.LSTM(3, 4, batch_first=True), nn.ReLU(), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.lstm(x)[0][:, -1]))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, CLASSES))


def cnn() -> nn.Module:
    first = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES))


def vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=8, patch_size=4, in_chans=1, num_classes=CLASSES, embed_dim=8, depth=1, num_heads=2, mlp_ratio=1
    )


def convmixer() -> nn.Module:
    from timm.models.convmixer import ConvMixer

    return ConvMixer(dim=4, depth=1, kernel_size=3, patch_size=4, in_chans=1, num_classes=CLASSES)


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(
        BertConfig(vocab_size=7, max_position_embeddings=5, num_labels=CLASSES, **sizes, **none)
    )


def gpt() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=7,
            n_positions=5,
            n_embd=8,
            n_layer=1,
            n_head=2,
            n_inner=8,
            bos_token_id=0,
            eos_token_id=0,
            **none,
        )
    )


def _normal(*shape: int) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, generator: torch.randn(n, *shape, generator=generator, dtype=torch.get_default_dtype())


def _tokens(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(7, (n, 5), generator=generator)


def _logits(returned: object) -> Tensor:
    return returned.logits  # type: ignore[attr-defined]


KINDS = {
    "MLP": Kind(mlp, _normal(6), ("1", "3")),
    "CNN": Kind(cnn, _normal(1, 6, 6), ("2", "4")),
    "LSTM": Kind(LastState, _normal(5, 3), ("relu",)),
    "ViT (timm)": Kind(vit, _normal(1, 8, 8), ("blocks.0.mlp.act",)),
    "ConvMixer (timm)": Kind(convmixer, _normal(1, 8, 8), ("stem.1", "blocks.0.0.fn.1", "blocks.0.2")),
    "BERT": Kind(
        bert,
        _tokens,
        ("bert.encoder.layer.0.intermediate.intermediate_act_fn", "bert.pooler.activation"),
        _logits,
    ),
    "GPT": Kind(gpt, _tokens, ("transformer.h.0.mlp.act",), _logits, token_classes=7),
}
