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

from fffcpu.checks import check_flag, check_integer, check_number
from fffcpu.config.layers import (
    ArraysConfig,
    AttentionConfig,
    DenseConfig,
    DenseFeedForwardConfig,
    EmbeddingConfig,
    FastFeedForwardConfig,
    LayerNormConfig,
    Shapes,
)
from fffcpu.errors import ArgumentError, CheckpointError, describe
from fffcpu.tree import MAX_DEPTH

__all__ = ["FEEDFORWARDS", "POOLERS", "FastBertConfig"]

FEEDFORWARDS = ("fff", "ff")
"""Types of feedforward: FastFeedForward, or the dense layer that it replaces."""

POOLERS = ("zero_index", "avg", "max", "lse")
"""How a classifier reduces a sequence to one vector: the vector of its first position, or over all
positions the mean, the largest of each column, or the logarithm of the sum of exponentials."""

MOST_LAYERS = 10_000
"""Maximum number of layers; a damaged config is then rejected before its modules are listed."""

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
    }
)
"""Our fields, and their places in ``arch``."""


@dataclasses.dataclass(frozen=True)
class FastBertConfig(ArraysConfig):
    """Config of a FastBERT: the encoder, and the head of a model that has one.

    Examples
    --------
    >>> from fffcpu.models import FastBertConfig
    >>> fast = FastBertConfig(32768, 768, 16, 12, feedforward_size=1, depth=11)  # 1 tree: "1x11"
    >>> dense = FastBertConfig(32768, 768, 16, 12, feedforward="ff", feedforward_size=3072)
    >>> fast.modules()["encoder.layers.0.feedforward"].active_neurons
    12
    """

    vocabulary: int
    """Number of tokens V."""
    width: int
    """Width D of a position."""
    layers: int
    """Number of layers."""
    heads: int
    """Number of attention heads per layer."""
    feedforward: str = dataclasses.field(default="fff", kw_only=True)
    """``"fff"`` for FastFeedForward, ``"ff"`` for a dense feedforward."""
    feedforward_size: int = dataclasses.field(kw_only=True)
    """Number of trees of a FastFeedForward, or of neurons of a dense feedforward."""
    depth: int = dataclasses.field(default=0, kw_only=True)
    """Depth of the trees; a dense feedforward ignores it."""
    two_sided: bool = dataclasses.field(default=False, kw_only=True)
    """Whether the nodes of the trees have output weights for each side; published models do not."""
    positions: int = dataclasses.field(default=128, kw_only=True)
    """Length of the longest sequence."""
    padding_id: int = dataclasses.field(default=0, kw_only=True)
    """The token that pads sequences."""
    classes: int | None = dataclasses.field(default=None, kw_only=True)
    """Outputs of a sequence classifier, 1 for a regression; None for a masked language model."""
    labels: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)
    """Names of the classes, or None."""
    pooler: str = dataclasses.field(default="zero_index", kw_only=True)
    """How a classifier reduces a sequence to one vector, one of `POOLERS`."""
    head_width: int = dataclasses.field(default=1024, kw_only=True)
    """Width of a classifier's hidden layer."""
    dropout: float = dataclasses.field(default=0.1, kw_only=True)
    """Dropout rate of the outputs of attention and feedforward, if a forward uses dropout."""
    embedding_dropout: float = dataclasses.field(default=0.1, kw_only=True)
    """Dropout rate of the embedding."""
    attention_dropout: float = dataclasses.field(default=0.1, kw_only=True)
    """Dropout rate of attention's probabilities."""
    classifier_dropout: float = dataclasses.field(default=0.1, kw_only=True)
    """Dropout rate of a classifier's hidden layer."""
    norm_eps: float = dataclasses.field(default=1e-12, kw_only=True)
    """Number that layer norms add to the variance."""
    initial_std: float = dataclasses.field(default=0.02, kw_only=True)
    """Standard deviation of initial weights."""
    dtype: Any = dataclasses.field(default="float32", kw_only=True)

    def __post_init__(self) -> None:
        for name, choices in (("feedforward", FEEDFORWARDS), ("pooler", POOLERS)):
            value = getattr(self, name)
            if value not in choices:
                names = ", ".join(repr(choice) for choice in choices)
                raise ArgumentError(
                    f"argument '{name}' must be one of {names}, got {describe(value)}"
                )
        for name in ("dropout", "embedding_dropout", "attention_dropout", "classifier_dropout"):
            self._set(name, check_number(name, getattr(self, name), 0.0, 1.0))
        self._set("norm_eps", check_number("norm_eps", self.norm_eps, 0.0))
        self._set("initial_std", check_number("initial_std", self.initial_std, 0.0))
        self._set("depth", check_integer("depth", self.depth, 0, MAX_DEPTH))
        if check_flag("two_sided", self.two_sided) and self.feedforward != "fff":
            raise ArgumentError(
                "argument 'two_sided' must be False for a dense feedforward, got True"
            )
        self._set("layers", check_integer("layers", self.layers, 0, MOST_LAYERS))
        if self.classes is not None:
            self._set("classes", check_integer("classes", self.classes, 1))
        self._set("labels", _check_labels(self.labels, self.classes))
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
        attention = AttentionConfig(width, self.heads, dtype=dtype)
        feedforward = self._feedforward()
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

    def _feedforward(self) -> ArraysConfig:
        """Return the config of a layer's feedforward."""
        width, size = self.width, self.feedforward_size
        if self.feedforward == "ff":
            return DenseFeedForwardConfig(width, width, size, bias=False, dtype=self.dtype)
        return FastFeedForwardConfig(
            width, width, self.depth, size, two_sided=self.two_sided, dtype=self.dtype
        )

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter; the decoder is the word embedding."""
        return {
            f"{module}.{name}": shape
            for module, config in self.modules().items()
            for name, shape in config.shapes().items()
        }

    @property
    def pools_padding(self) -> bool:
        """Whether a classifier's pooler includes padding, as all published ones but one do."""
        return self.pooler != "zero_index"

    def visits_few(self, tokens: int) -> bool:
        """Whether this many tokens visit, at most, less than half of a tree's nodes.

        Gradients that hold only visited nodes are then cheaper.
        """
        visits = tokens * (self.depth + 1)
        return self.feedforward == "fff" and 2 * visits < 2 ** (self.depth + 1) - 1

    def kept_bytes(self, batch: int, length: int) -> int:
        """Return the bytes that the encoder keeps of a training step, at least.

        Parameters
        ----------
        batch, length : int
            Number of sequences, and of their tokens.
        """
        paths = 2 * self.feedforward_size * (self.depth + 1) if self.feedforward == "fff" else 0
        layer = 8 * self.width + self.heads * length + paths
        return batch * length * (2 * self.width + self.layers * layer) * self.itemsize

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``, with all fields that the published code reads."""
        head = "LMForPreTraining" if self.classes is None else "LMForSequenceClassification"
        arch: dict[str, Any] = {"architectures": ["ScriptableCrammedBERT"]}
        places = {place: getattr(self, ours) for ours, at in _FIELDS.items() for place in at}
        if not self.two_sided:  # not a field of published models
            del places["intermed_two_sided"]
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
        if self.labels is not None:
            values["id2label"] = {str(number): name for number, name in enumerate(self.labels)}
            values["label2id"] = {name: number for number, name in enumerate(self.labels)}
        return values

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
        _read_labels(values, fields)
        required = {"vocabulary", "width", "layers", "heads", "feedforward_size", "depth"}
        missing = [_FIELDS[name][0] for name in _FIELDS if name in required - fields.keys()]
        if missing:
            raise CheckpointError(f"has no {', '.join(repr(place) for place in missing)} in 'arch'")
        try:
            return cls(**fields, dtype=dtype)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"has an impossible field: {error}") from error


def _check_labels(labels: Any, classes: int | None) -> tuple[str, ...] | None:
    """Return the names of a model's classes, after checking their number."""
    if labels is None or classes is None:
        return None
    names = tuple(labels) if isinstance(labels, (list, tuple)) else ()
    if len(set(names)) != classes or not all(isinstance(name, str) for name in names):
        raise ArgumentError(
            f"argument 'labels' must hold {classes} different names, got {describe(labels)}"
        )
    return names


def _read_labels(values: Mapping[str, Any], fields: dict[str, Any]) -> None:
    """Read the names of the classes, and their number unless another field gives it."""
    names, architectures = values.get("id2label"), values.get("architectures")
    if not isinstance(names, Mapping):
        return
    if fields.get("classes") is None:
        # They mean nothing for a masked language model, but other programs may write two names.
        heads = architectures if isinstance(architectures, list) else []
        if any(str(head).endswith(_MASKED_HEADS) for head in heads):
            return
        fields["classes"] = len(names)
    labels = tuple(names.get(str(number)) for number in range(len(names)))
    if len(labels) == fields["classes"] and None not in labels:
        fields["labels"] = labels


def _look_up(arch: Mapping[str, Any], place: str) -> Any:
    """Return the value at a place such as ``"attention.type"``, or () if there is none."""
    table: Any = arch
    for name in place.split("."):
        if not isinstance(table, Mapping) or name not in table:
            return ()
        table = table[name]
    return table
