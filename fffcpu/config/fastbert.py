"""Config of a FastBERT, without its parameters, and the configs of its modules.

A FastBERT is a stack of modules, each with its own config; `FastBertConfig.modules` lists them by
name. The config converts to and from the ``config.json`` of a published folder, whose ``arch``
table has the fields of "Cramming" (arXiv 2212.14034).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fffcpu.checks import check_number
from fffcpu.config.encoder import EncoderConfig, read_labels, write_labels
from fffcpu.config.layers import (
    ArraysConfig,
    DenseConfig,
    EmbeddingConfig,
    LayerNormConfig,
)
from fffcpu.errors import CheckpointError, describe

__all__ = ["FastBertConfig"]

_CONVENTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "attention.type": "self-attention",
        "attention.causal_attention": False,
        "attention.rotary_embedding": False,
        "attention.qkv_bias": False,
        "attention.skip_output_projection": False,
        "attention.sequence_op": "torch-softmax",
        "embedding.pos_embedding": "scaled-sinusoidal",
        "embedding.normalization": True,
        "classification_head.include_ff_layer": True,
        "classification_head.nonlin": "Tanh",
        "init.type": "normal",
        "norm": "LayerNorm",
        "norm_scheme": "pre",
        "nonlin": "GELU",
        "objective_layout": "MLM",
        "ffn_layer_frequency": 1,
        "final_norm": True,
        "skip_head_transform": True,
        "tie_weights": True,
        "use_bias": False,
        "decoder_bias": False,
    }
)
"""Fields of ``arch`` for which only one value is supported; it is also the default."""

_MASKED_HEADS = ("ForPreTraining", "ForMaskedLM")
"""Endings of the names in ``architectures`` that belong to masked language models."""

_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "vocabulary": ("embedding.vocab_size",),
        "width": ("hidden_size", "embedding.embedding_dim"),
        "layers": ("num_transformer_layers",),
        "heads": ("attention.num_attention_heads",),
        "feedforward": ("intermed_type",),
        "feedforward_size": ("intermed_size",),
        "depth": ("intermed_depth",),
        "two_sided": ("intermed_two_sided",),
        "positions": ("embedding.max_seq_length",),
        "padding_id": ("embedding.pad_token_id",),
        "classes": ("num_labels",),
        "pooler": ("classification_head.pooler",),
        "head_width": ("classification_head.head_dim",),
        "dropout": ("hidden_dropout_prob",),
        "embedding_dropout": ("embedding.dropout_prob",),
        "attention_dropout": ("attention.dropout_prob",),
        "classifier_dropout": ("classification_head.classifier_dropout",),
        "norm_eps": ("norm_eps",),
        "initial_std": ("init.std",),
        "weights": ("weights",),
    }
)
"""Our fields, and their places in ``arch``."""


@dataclasses.dataclass(frozen=True)
class FastBertConfig(EncoderConfig):
    """Config of a FastBERT: the encoder, and the head of a model that has one.

    Examples
    --------
    >>> from fffcpu.models import FastBertConfig
    >>> fast = FastBertConfig(32768, 768, 16, 12, feedforward_size=1, depth=11)  # 1 tree: "1x11"
    >>> dense = FastBertConfig(32768, 768, 16, 12, feedforward="ff", feedforward_size=3072)
    >>> fast.modules()["encoder.layers.0.feedforward"].active_neurons
    12
    """

    head_width: int = dataclasses.field(default=1024, kw_only=True)
    """Width of a classifier's hidden layer."""
    embedding_dropout: float = dataclasses.field(default=0.1, kw_only=True)
    """Dropout rate of the embedding."""

    def _check_own(self) -> None:
        rate = check_number("embedding_dropout", self.embedding_dropout, 0.0, 1.0)
        self._set("embedding_dropout", rate)
        lows = {"feedforward_size": 1, "head_width": 1}
        lows |= {"vocabulary": 1, "width": 2, "heads": 1, "positions": 1, "padding_id": 0}
        self._finish("a FastBERT", **lows)

    def modules(self) -> dict[str, ArraysConfig]:
        """Return the name and config of every module, in the order of the computation."""
        width, dtype = self.width, self.dtype
        norm = LayerNormConfig(width, self.norm_eps, dtype=dtype)
        modules: dict[str, ArraysConfig] = {
            "encoder.embedding": EmbeddingConfig(
                self.vocabulary, width, self.positions, self.padding_id, dtype=dtype
            ),
            "encoder.embedding.norm": norm,
        }
        attention = self._attention(bias=False)
        feedforward = self._feedforward(bias=False)
        for i in range(self.layers):
            layer = f"encoder.layers.{i}"
            modules[f"{layer}.norm1"] = norm
            modules[f"{layer}.attention"] = attention
            modules[f"{layer}.norm2"] = norm
            modules[f"{layer}.feedforward"] = feedforward
        modules["encoder.final_norm"] = norm
        if self.classes is not None:
            modules["pooler"] = DenseConfig(width, self.head_width, dtype=dtype)
            modules["head"] = DenseConfig(self.head_width, self.classes, dtype=dtype)
        return modules

    @property
    def pooling(self) -> str:
        """How an encoder of texts makes one vector of a text; see `BertConfig`."""
        return "mean"

    @property
    def normalize(self) -> bool:
        """Whether these vectors are scaled to length 1."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``, with all fields that the published code reads."""
        head = "LMForPreTraining" if self.classes is None else "LMForSequenceClassification"
        arch: dict[str, Any] = {"architectures": ["ScriptableCrammedBERT"]}
        places = {place: getattr(self, ours) for ours, at in _FIELDS.items() for place in at}
        # Not fields of published models.
        if not self.two_sided:
            del places["intermed_two_sided"]
        if self.weights is None:
            del places["weights"]
        # Fields that the published code reads, but that nothing here depends on.
        others = {
            "attention.seq_op_in_fp32": False,
            "embedding.stable_low_precision": False,
            "loss": "cross-entropy",
            "sparse_prediction": 0.25,
        }
        for place, value in sorted({**_CONVENTIONS, **places, **others}.items()):
            *tables, field = place.split(".")
            table = arch
            for name in tables:
                table = table.setdefault(name, {})
            table[field] = value
        values = {"model_type": "crammedBERT", "architectures": [f"Scriptable{head}"], "arch": arch}
        return values | write_labels(self.labels)

    @classmethod
    def from_dict(cls, values: Any, *, dtype: Any = "float32") -> FastBertConfig:
        """Make a config from the content of a published ``config.json``.

        Parameters
        ----------
        values : mapping
            Content with an ``arch`` table. Fields that nothing here depends on are ignored.
        dtype : dtype
            dtype of the config.

        Raises
        ------
        CheckpointError
            If a field is missing, has an impossible value or an unsupported one; the message names
            the field.
        """
        arch = values.get("arch") if isinstance(values, Mapping) else None
        if not isinstance(arch, Mapping):
            raise CheckpointError(f"must have a table 'arch', got {describe(arch)}")
        for place, only in _CONVENTIONS.items():
            value = _look_up(arch, place)
            if value not in ((), only):
                raise CheckpointError(f"must have {only!r} for '{place}', got {describe(value)}")
        fields: dict[str, Any] = {}
        for ours, places in _FIELDS.items():
            found = [value for value in (_look_up(arch, place) for place in places) if value != ()]
            if any(value != found[0] for value in found):
                raise CheckpointError(f"must have the same value for {' and '.join(places)}")
            if found:
                fields[ours] = found[0]
        # As in the published code, a missing type means a dense feedforward, which has no depth.
        if fields.setdefault("feedforward", "ff") == "ff" and fields.get("depth") is None:
            fields["depth"] = 0
        read_labels(values, fields, _MASKED_HEADS)
        required = {"vocabulary", "width", "layers", "heads", "feedforward_size", "depth"}
        missing = [_FIELDS[name][0] for name in _FIELDS if name in required - fields.keys()]
        if missing:
            raise CheckpointError(f"has no {', '.join(repr(place) for place in missing)} in 'arch'")
        try:
            return cls(**fields, dtype=dtype)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"has an impossible field: {error}") from error


def _look_up(arch: Mapping[str, Any], place: str) -> Any:
    """Return the value at a place such as ``"attention.type"``, or () if there is none."""
    table: Any = arch
    for name in place.split("."):
        if not isinstance(table, Mapping) or name not in table:
            return ()
        table = table[name]
    return table
