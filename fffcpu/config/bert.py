"""Config of a BERT whose feedforwards may be trees, its head included, and of its modules.

The config converts to and from the ``config.json`` of a Hugging Face folder. That file has no field
for trees in place of dense feedforwards, nor for how an encoder of sentences makes one vector of a
text. These are in an additional table, ``"fffcpu"``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fffcpu.checks import check_flag, check_integer
from fffcpu.config.encoder import EncoderConfig, check_choice, read_labels, write_labels
from fffcpu.config.layers import (
    Activation,
    ArraysConfig,
    DenseConfig,
    LayerNormConfig,
    LearnedEmbeddingConfig,
    Shapes,
)
from fffcpu.errors import CheckpointError, describe

__all__ = ["HEADS", "MODEL_TYPE", "POOLINGS", "BertConfig"]

MODEL_TYPE = "bert"
"""What ``config.json`` has as ``model_type``."""

POOLINGS = ("mean", "start")
"""Ways to pool a text into one vector: the mean of its tokens' hidden states, or that of the start
token."""

HEADS = ("pooler", "masked_lm")
"""What may follow an encoder, apart from a classifier: a pooler, which a classifier starts from, or
the head of a masked language model."""

_CLASSIFIER = "BertForSequenceClassification"
_MASKED_LMS = ("BertForMaskedLM", "BertForPreTraining")
"""Names in ``architectures`` that decide the head; without one of them, the encoder is alone."""

_CLASSES = 2
"""Number of classes where ``config.json`` says nothing."""

_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "vocabulary": "vocab_size",
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "feedforward_size": "intermediate_size",
        "activation": "hidden_act",
        "positions": "max_position_embeddings",
        "types": "type_vocab_size",
        "padding_id": "pad_token_id",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "classifier_dropout": "classifier_dropout",
        "norm_eps": "layer_norm_eps",
        "initial_std": "initializer_range",
    }
)
"""Our fields, and their names in ``config.json``."""

_OWN = (
    "feedforward",
    "feedforward_size",
    "depth",
    "two_sided",
    "pooling",
    "normalize",
    "cut",
    "pooler",
)
"""Our fields in the table ``"fffcpu"``."""

_RARE = ("weights",)
"""Fields of that table that only some models have."""

_REQUIRED = ("vocabulary", "width", "layers", "heads", "feedforward_size")

_CONVENTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
    }
)
"""Fields of ``config.json`` for which only one value is supported; it is also the default."""


@dataclasses.dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """Config of a BERT.

    Examples
    --------
    >>> from fffcpu.models import BertConfig
    >>> dense = BertConfig(30522, 384, 6, 12, feedforward_size=1536)
    >>> trees = BertConfig(30522, 384, 6, 12, feedforward="fff", feedforward_size=8, depth=7)
    >>> trees.modules()["encoder.layers.0.feedforward"].active_neurons
    64
    """

    feedforward: str = dataclasses.field(default="ff", kw_only=True)
    """``"ff"`` for a dense feedforward, ``"fff"`` for FastFeedForward."""
    positions: int = dataclasses.field(default=512, kw_only=True)
    """Number of positions that have a vector: the length of the longest sequence."""
    head: str | None = dataclasses.field(default=None, kw_only=True)
    """What follows the encoder, one of `HEADS`, or None; with ``classes``, a classifier does. The
    names of a folder's arrays say whether an encoder has a pooler."""
    types: int = dataclasses.field(default=2, kw_only=True)
    """Number of types K of a token."""
    activation: str = dataclasses.field(default="gelu", kw_only=True)
    """Name of the activation of feedforwards."""
    pooling: str = dataclasses.field(default="mean", kw_only=True)
    """How an encoder of texts makes one vector of a text, one of `POOLINGS`."""
    normalize: bool = dataclasses.field(default=False, kw_only=True)
    """Whether these vectors are scaled to length 1."""
    cut: int | None = dataclasses.field(default=None, kw_only=True)
    """Number of tokens after which texts are cut; None is ``positions``."""

    def _check_own(self) -> None:
        check_choice("pooling", self.pooling, POOLINGS)
        if self.head is not None:
            check_choice("head", self.head, HEADS)
        self._set("normalize", check_flag("normalize", self.normalize))
        self._set("activation", Activation.parse(self.activation).name.lower())
        lows = {"feedforward_size": 1, "types": 1, "vocabulary": 1, "width": 1, "heads": 1}
        self._finish("a BERT", **lows, positions=1, padding_id=0)
        if self.cut is not None:
            self._set("cut", check_integer("cut", self.cut, 1, self.positions))

    @property
    def longest(self) -> int:
        """Number of tokens after which texts are cut, start and end included."""
        return self.positions if self.cut is None else self.cut

    def modules(self) -> dict[str, ArraysConfig]:
        """Return the name and config of every module, in the order of the computation."""
        width, dtype = self.width, self.dtype
        norm = LayerNormConfig(width, self.norm_eps, dtype=dtype)
        dense = DenseConfig(width, width, dtype=dtype)
        modules: dict[str, ArraysConfig] = {
            "encoder.embedding": LearnedEmbeddingConfig(
                self.vocabulary, width, self.positions, self.types, self.padding_id, dtype=dtype
            ),
            "encoder.embedding.norm": norm,
        }
        attention = self._attention(bias=True)
        feedforward = self._feedforward(bias=True, activation=self.activation)
        for i in range(self.layers):
            layer = f"encoder.layers.{i}"
            modules[f"{layer}.attention"] = attention
            modules[f"{layer}.norm1"] = norm
            modules[f"{layer}.feedforward"] = feedforward
            modules[f"{layer}.norm2"] = norm
        if self.classes is not None or self.head == "pooler":
            modules["pooler"] = dense
        if self.classes is not None:
            modules["head"] = DenseConfig(width, self.classes, dtype=dtype)
        elif self.head == "masked_lm":
            modules["decoder.transform"] = dense
            modules["decoder.norm"] = norm
        return modules

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter.

        The bias of a feedforward's outputs, which the feedforwards of this package do not have,
        belongs to the layer. That of the decoder, which has the weights of the words, belongs to
        the model.
        """
        shapes = super().shapes()
        shapes |= {f"encoder.layers.{i}.bias_out": (self.width,) for i in range(self.layers)}
        if self.classes is None and self.head == "masked_lm":
            shapes["decoder.bias"] = (self.vocabulary,)
        return shapes

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        values: dict[str, Any] = {"model_type": MODEL_TYPE, "architectures": [self._architecture]}
        values |= {theirs: getattr(self, ours) for ours, theirs in _FIELDS.items()}
        if self.classes is not None:
            values |= write_labels(self.labels) or {"num_labels": self.classes}
            values["problem_type"] = _problem(self.classes)
        rare = [name for name in _RARE if getattr(self, name) is not None]
        values["fffcpu"] = {name: getattr(self, name) for name in (*_OWN, *rare)}
        return {**values, **_CONVENTIONS}

    @classmethod
    def from_dict(
        cls, values: Any, *, sentence: Mapping[str, Any] | None = None, dtype: Any = "float32"
    ) -> BertConfig:
        """Make a config from the content of a ``config.json``.

        Parameters
        ----------
        values : mapping
            The content. Fields that nothing here depends on are ignored.
        sentence : mapping, optional
            ``pooling``, ``normalize`` and ``cut`` where the content has no table ``"fffcpu"``.
        dtype : dtype
            dtype of the config.

        Raises
        ------
        CheckpointError
            If a field is missing, has an impossible value or an unsupported one; the message names
            the field.
        """
        if not isinstance(values, Mapping) or values.get("model_type") != MODEL_TYPE:
            kind = values.get("model_type") if isinstance(values, Mapping) else values
            raise CheckpointError(f"must have 'model_type' {MODEL_TYPE!r}, got {describe(kind)}")
        for name, only in _CONVENTIONS.items():
            if values.get(name, only) not in (only, None):
                raise CheckpointError(
                    f"must have {only!r} for '{name}', got {describe(values[name])}"
                )
        fields = {ours: values[name] for ours, name in _FIELDS.items() if name in values}
        if fields.get("classifier_dropout") is None:
            fields["classifier_dropout"] = fields.get("dropout", cls.classifier_dropout)
        own = values.get("fffcpu", sentence or {})
        if not isinstance(own, Mapping):
            raise CheckpointError(f"must have a table 'fffcpu', got {describe(own)}")
        fields |= {name: own[name] for name in (*_OWN, *_RARE) if name in own}
        missing = [_FIELDS[name] for name in _REQUIRED if name not in fields]
        if missing:
            raise CheckpointError(f"has no {', '.join(map(repr, missing))}")
        _read_head(values, fields)
        try:
            return cls(**fields, dtype=dtype)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"has an impossible field: {error}") from error

    @property
    def _architecture(self) -> str:
        """Class of ``transformers`` that has this head."""
        if self.classes is not None:
            return _CLASSIFIER
        return _MASKED_LMS[0] if self.head == "masked_lm" else "BertModel"


def _read_head(values: Mapping[str, Any], fields: dict[str, Any]) -> None:
    """Read what follows the encoder, and of a classifier its classes and their names."""
    names = values.get("architectures")
    kinds = names if isinstance(names, list) else []
    if any(kind in kinds for kind in _MASKED_LMS):
        fields["head"] = "masked_lm"
    elif _CLASSIFIER in kinds:
        read_labels(values, fields, ())
        fields.setdefault("classes", values.get("num_labels", _CLASSES))
        if fields["classes"] == 1:
            fields.pop("labels", None)
        problem = _problem(fields["classes"])
        if values.get("problem_type") not in (None, problem):
            raise CheckpointError(
                f"must have {problem!r} for 'problem_type' with this number of labels, "
                f"got {describe(values['problem_type'])}"
            )


def _problem(classes: Any) -> str:
    """Return what ``transformers`` calls the task of a classifier."""
    return "regression" if classes == 1 else "single_label_classification"
