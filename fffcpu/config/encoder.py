"""What the configs of all encoders have in common: sizes, feedforwards, dropout, memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from fffcpu.checks import check_flag, check_integer, check_number
from fffcpu.config.layers import (
    ArraysConfig,
    AttentionConfig,
    DenseFeedForwardConfig,
    FastFeedForwardConfig,
    QuantizedAttentionConfig,
    QuantizedDenseFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
    Shapes,
)
from fffcpu.errors import ArgumentError, describe
from fffcpu.tree import MAX_DEPTH

__all__ = [
    "FEEDFORWARDS",
    "POOLERS",
    "EncoderConfig",
    "check_choice",
    "read_labels",
    "write_labels",
]

FEEDFORWARDS = ("fff", "ff")
"""Types of feedforward: FastFeedForward, or the dense layer that it replaces."""

POOLERS = ("zero_index", "avg", "max", "lse")
"""How a classifier reduces a sequence to one vector: the vector of its first position, or over all
positions the mean, the largest of each column, or the logarithm of the sum of exponentials."""

MOST_LAYERS = 10_000
"""Maximum number of layers; a damaged config is then rejected before its modules are listed."""


@dataclasses.dataclass(frozen=True)
class EncoderConfig(ArraysConfig):
    """Base of the configs of encoders, and of the models with a head on one."""

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
    """Outputs of a sequence classifier, 1 for a regression; None for other models."""
    labels: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)
    """Names of the classes, or None."""
    pooler: str = dataclasses.field(default="zero_index", kw_only=True)
    """How a classifier reduces a sequence to one vector, one of `POOLERS`."""
    dropout: float = dataclasses.field(default=0.1, kw_only=True)
    """Dropout rate of the outputs of attention and feedforward, if a forward uses dropout."""
    attention_dropout: float = dataclasses.field(default=0.1, kw_only=True)
    """Dropout rate of attention's probabilities."""
    classifier_dropout: float = dataclasses.field(default=0.1, kw_only=True)
    """Dropout rate of a classifier's hidden layer."""
    norm_eps: float = dataclasses.field(default=1e-12, kw_only=True)
    """Number that layer norms add to the variance."""
    initial_std: float = dataclasses.field(default=0.02, kw_only=True)
    """Standard deviation of initial weights."""
    weights: str | None = dataclasses.field(default=None, kw_only=True)
    """``"int8"`` if attention and feedforwards have such weights, for inference; else None."""
    dtype: Any = dataclasses.field(default="float32", kw_only=True)

    def __post_init__(self) -> None:
        check_choice("feedforward", self.feedforward, FEEDFORWARDS)
        check_choice("pooler", self.pooler, POOLERS)
        for name in ("dropout", "attention_dropout", "classifier_dropout"):
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
        if self.weights is not None:
            check_choice("weights", self.weights, ("int8",))
        self._check_own()

    def _check_own(self) -> None:
        """Check the fields of the subclass, and finish with `_finish`."""
        raise NotImplementedError

    def modules(self) -> dict[str, ArraysConfig]:
        """Return the name and config of every module, in the order of the computation."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        raise NotImplementedError

    @property
    def longest(self) -> int:
        """Number of tokens after which texts are cut, start and end included."""
        return self.positions

    @property
    def pools_padding(self) -> bool:
        """Whether a classifier's pooler includes padding, as all published ones but one do."""
        return self.pooler != "zero_index"

    def classifier(
        self, classes: int, labels: tuple[str, ...] | None, *, pooler: str, dropout: float
    ) -> Self:
        """Return the config of a classifier on this encoder, with one rate for all dropouts."""
        rates: dict[str, Any] = {
            field.name: dropout
            for field in dataclasses.fields(self)
            if field.name.endswith("dropout")
        }
        return dataclasses.replace(self, classes=classes, labels=labels, pooler=pooler, **rates)

    def _feedforward(self, *, bias: bool, activation: str = "gelu") -> ArraysConfig:
        """Return the config of a layer's feedforward; ``bias`` is about a dense one."""
        width, size = self.width, self.feedforward_size
        how: dict[str, Any] = {"activation": activation, "dtype": self.dtype}
        if self.feedforward == "ff":
            how["bias"] = bias
            if self.weights is None:
                return DenseFeedForwardConfig(width, width, size, **how)
            return QuantizedDenseFeedForwardConfig(width, width, size, weights=self.weights, **how)
        how["two_sided"] = self.two_sided
        if self.weights is None:
            return FastFeedForwardConfig(width, width, self.depth, size, **how)
        return QuantizedFastFeedForwardConfig(
            width, width, self.depth, size, weights=self.weights, **how
        )

    def _attention(self, *, bias: bool) -> AttentionConfig:
        """Return the config of a layer's attention."""
        how: dict[str, Any] = {"bias": bias, "dtype": self.dtype}
        if self.weights is None:
            return AttentionConfig(self.width, self.heads, **how)
        return QuantizedAttentionConfig(self.width, self.heads, weights=self.weights, **how)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter; the decoder is the word embedding."""
        return {
            f"{module}.{name}": shape
            for module, config in self.modules().items()
            for name, shape in config.shapes().items()
        }

    def dtypes(self) -> dict[str, str]:
        """Return the name and type of every parameter."""
        own = {
            f"{module}.{name}": dtype
            for module, config in self.modules().items()
            for name, dtype in config.dtypes().items()
        }
        return super().dtypes() | own

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


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise unless a field has one of some values."""
    if value not in choices:
        names = ", ".join(repr(choice) for choice in choices)
        raise ArgumentError(f"argument '{name}' must be one of {names}, got {describe(value)}")


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


def write_labels(labels: tuple[str, ...] | None) -> dict[str, Any]:
    """Return the tables of ``config.json`` with the names of the classes; none without names."""
    if labels is None:
        return {}
    names = {str(number): name for number, name in enumerate(labels)}
    return {"id2label": names, "label2id": {name: number for number, name in enumerate(labels)}}


def read_labels(values: Mapping[str, Any], fields: dict[str, Any], masked: tuple[str, ...]) -> None:
    """Read the names of the classes, and their number unless another field gives it.

    ``masked`` has the endings of the names in ``architectures`` that belong to masked language
    models.
    """
    names, architectures = values.get("id2label"), values.get("architectures")
    if not isinstance(names, Mapping):
        return
    if fields.get("classes") is None:
        # They mean nothing for a masked language model, but other programs may write two names.
        heads = architectures if isinstance(architectures, list) else []
        if any(str(head).endswith(masked) for head in heads):
            return
        fields["classes"] = len(names)
    labels = tuple(names.get(str(number)) for number in range(len(names)))
    if len(labels) == fields["classes"] and None not in labels:
        fields["labels"] = labels
