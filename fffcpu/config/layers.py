"""Configs of layers, without parameters: frozen dataclasses that check themselves.

Each config converts to plain JSON values with ``to_dict`` and back with ``from_dict``; files hold
it next to the arrays.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from enum import IntEnum
from typing import Any, ClassVar, Self

import numpy as np

from fffcpu.checks import check_dtype, check_flag, check_integer, check_number, check_weights
from fffcpu.errors import ArgumentError, CheckpointError, describe
from fffcpu.lowbit import numpy_dtype
from fffcpu.tree import MAX_DEPTH, gate_count, leaf_count, node_count

__all__ = [
    "Activation",
    "ArraysConfig",
    "AttentionConfig",
    "DenseConfig",
    "DenseFeedForwardConfig",
    "EmbeddingConfig",
    "FastFeedForwardConfig",
    "LayerConfig",
    "LayerNormConfig",
    "LeafFeedForwardConfig",
    "LearnedEmbeddingConfig",
    "QuantizedAttentionConfig",
    "QuantizedDenseFeedForwardConfig",
    "QuantizedFastFeedForwardConfig",
    "QuantizedLeafFeedForwardConfig",
]

Shapes = dict[str, tuple[int, ...]]

MOST_INT8_TERMS = (2**31 - 1) // 127**2
"""Number of products of two int8 numbers whose sum always fits into int32."""


class Activation(IntEnum):
    """The activations, with the codes that kernels use for them."""

    GELU = 0
    """``s * Phi(s)``, where Phi is the normal distribution function (exact, by erf)."""
    RELU = 1
    """``max(s, 0)``."""
    IDENTITY = 2
    """``s``."""

    @classmethod
    def parse(cls, name: Any) -> Activation:
        """Return the activation called ``name``, in upper or lower case."""
        if isinstance(name, str) and name.upper() in cls.__members__:
            return cls[name.upper()]
        names = ", ".join(repr(member.name.lower()) for member in cls)
        raise ArgumentError(f"argument 'activation' must be one of {names}, got {describe(name)}")


NO_ACTIVATION = -1
"""What kernels take instead of the code of an activation, if there is none."""


class ArraysConfig:
    """Base of all configs: the names, shapes and types of the arrays that belong to one."""

    dtype: Any
    """dtype of the parameters and outputs, ``"float32"`` or ``"float64"`` (in any spelling)."""

    def _set(self, name: str, value: Any) -> None:
        # A frozen dataclass can normalize its own fields during construction only in this way.
        object.__setattr__(self, name, value)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter, in the order of the mathematics."""
        raise NotImplementedError

    def dtypes(self) -> dict[str, str]:
        """Return the name and type of every parameter; see `fffcpu.lowbit.numpy_dtype`."""
        return dict.fromkeys(self.shapes(), self.dtype)

    @property
    def itemsize(self) -> int:
        """Bytes per number of the inputs and outputs."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters."""
        shapes, dtypes = self.shapes(), self.dtypes()
        return sum(
            math.prod(shape) * numpy_dtype(dtypes[name]).itemsize for name, shape in shapes.items()
        )

    def _check_sizes(self, what: str) -> None:
        """Raise an error if a parameter would not fit into an address space."""
        for name, shape in self.shapes().items():
            if math.prod(shape) > sys.maxsize // 8:
                raise ArgumentError(
                    f"the sizes of {what} must fit into an address space, "
                    f"got sizes too large for the parameter '{name}'"
                )

    def _finish(self, what: str, **lows: int) -> None:
        """Check the integers against their minimums, the dtype and the sizes."""
        for name, low in lows.items():
            self._set(name, check_integer(name, getattr(self, name), low))
        self._set("dtype", check_dtype(self.dtype))
        self._check_sizes(what)


@dataclasses.dataclass(frozen=True)
class LayerConfig(ArraysConfig):
    """Base of the layers' configs; see the subclasses."""

    kind: ClassVar[str]
    """Name of the layer's class, as files store it."""

    input_dim: int
    """Input width I."""
    output_dim: int
    """Output width O."""
    activation: str = dataclasses.field(default="gelu", kw_only=True)
    """Name of the activation."""
    dtype: Any = dataclasses.field(default="float32", kw_only=True)
    """dtype of the parameters and outputs, ``"float32"`` or ``"float64"`` (in any spelling)."""

    def __post_init__(self) -> None:
        self._set("input_dim", check_integer("input_dim", self.input_dim, 1))
        self._set("output_dim", check_integer("output_dim", self.output_dim, 1))
        self._set("activation", Activation.parse(self.activation).name.lower())
        self._set("dtype", check_dtype(self.dtype))
        self._check_own()
        self._check_sizes(f"a {self.kind}")

    def _check_own(self) -> None:
        """Check the fields of a subclass."""
        raise NotImplementedError

    @property
    def neurons(self) -> int:
        """Number of neurons in the layer."""
        raise NotImplementedError

    @property
    def active_neurons(self) -> int:
        """Number of neurons that inference uses per row."""
        raise NotImplementedError

    @property
    def multiply_adds(self) -> int:
        """Number of multiply-adds of inference per row.

        Each neuron used reads a row of width I and writes one of width O.
        """
        return self.active_neurons * (self.input_dim + self.output_dim)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, sizes first."""
        fields = sorted(dataclasses.fields(self), key=lambda field: bool(field.kw_only))
        return {field.name: getattr(self, field.name) for field in fields}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Make a config from the result of ``to_dict``.

        Raises
        ------
        CheckpointError
            If a field is missing or unknown.
        """
        if not isinstance(values, dict):
            raise CheckpointError(f"config of {cls.kind} must be a mapping, got {describe(values)}")
        fields = {field.name for field in dataclasses.fields(cls)}
        wrong = [f"missing '{name}'" for name in sorted(fields - set(values))]
        wrong += [f"unknown '{name}'" for name in sorted(set(values) - fields, key=str)]
        if wrong:
            raise CheckpointError(f"config of {cls.kind} does not fit: {', '.join(wrong)}")
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class FastFeedForwardConfig(LayerConfig):
    """Config of FastFeedForward: ``trees`` trees of ``2**(depth + 1) - 1`` neurons."""

    kind: ClassVar[str] = "FastFeedForward"

    depth: int
    """Depth of each tree; a row visits ``depth + 1`` nodes."""
    trees: int = 1
    """Number of trees T whose outputs are summed."""
    bias: bool = dataclasses.field(default=True, kw_only=True)
    """Whether each node's logit has a bias."""
    two_sided: bool = dataclasses.field(default=False, kw_only=True)
    """Whether each node has output weights for each side."""

    def _check_own(self) -> None:
        self._set("depth", check_integer("depth", self.depth, 0, MAX_DEPTH))
        self._set("trees", check_integer("trees", self.trees, 1))
        self._set("bias", check_flag("bias", self.bias))
        self._set("two_sided", check_flag("two_sided", self.two_sided))

    @property
    def neurons(self) -> int:
        """Number of neurons in the layer; every node is one."""
        return self.trees * node_count(self.depth)

    @property
    def active_neurons(self) -> int:
        """Number of neurons on the paths of one row, in all trees."""
        return self.trees * (self.depth + 1)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter."""
        nodes = (self.trees, node_count(self.depth))
        shapes: Shapes = {"weights_in": (*nodes, self.input_dim)}
        if self.bias:
            shapes["bias_in"] = nodes
        shapes["weights_out"] = (*nodes, *self.side_axes, self.output_dim)
        return shapes

    @property
    def side_axes(self) -> tuple[int, ...]:
        """Axis for the sides, in what belongs to output weights: (2,) if two-sided, else ()."""
        return (2,) if self.two_sided else ()


@dataclasses.dataclass(frozen=True)
class LeafFeedForwardConfig(LayerConfig):
    """Config of LeafFeedForward: ``2**depth - 1`` gates over ``2**depth`` leaf networks."""

    kind: ClassVar[str] = "LeafFeedForward"

    depth: int
    """Depth of the tree; a row passes ``depth`` gates and one leaf."""
    leaf_width: int
    """Number of neurons H of each leaf."""

    def _check_own(self) -> None:
        self._set("depth", check_integer("depth", self.depth, 0, MAX_DEPTH))
        self._set("leaf_width", check_integer("leaf_width", self.leaf_width, 1))

    @property
    def neurons(self) -> int:
        """Number of neurons of all leaves (the training width); gates are not counted."""
        return leaf_count(self.depth) * self.leaf_width

    @property
    def active_neurons(self) -> int:
        """Number of neurons of the one leaf that a row reaches; gates are not counted."""
        return self.leaf_width

    @property
    def multiply_adds(self) -> int:
        """Number of multiply-adds of inference per row, for the gates and the leaf.

        A gate reads a row of width I and writes nothing.
        """
        return super().multiply_adds + self.depth * self.input_dim

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter."""
        gates, leaves = gate_count(self.depth), leaf_count(self.depth)
        return {
            "gate_weights": (gates, self.input_dim),
            "gate_bias": (gates,),
            "leaf_weights_in": (leaves, self.input_dim, self.leaf_width),
            "leaf_bias_in": (leaves, self.leaf_width),
            "leaf_weights_out": (leaves, self.leaf_width, self.output_dim),
            "leaf_bias_out": (leaves, self.output_dim),
        }


@dataclasses.dataclass(frozen=True)
class DenseFeedForwardConfig(LayerConfig):
    """Config of DenseFeedForward: one hidden layer of ``width`` neurons, all of them used."""

    kind: ClassVar[str] = "DenseFeedForward"

    width: int
    """Number of neurons of the hidden layer."""
    bias: bool = dataclasses.field(default=True, kw_only=True)
    """Whether each neuron has an input bias."""

    def _check_own(self) -> None:
        self._set("width", check_integer("width", self.width, 1))
        self._set("bias", check_flag("bias", self.bias))

    @property
    def neurons(self) -> int:
        """Number of neurons in the layer."""
        return self.width

    @property
    def active_neurons(self) -> int:
        """Number of neurons in the layer; every row uses all of them."""
        return self.width

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter."""
        shapes: Shapes = {"weights_in": (self.width, self.input_dim)}
        if self.bias:
            shapes["bias_in"] = (self.width,)
        shapes["weights_out"] = (self.width, self.output_dim)
        return shapes


def _check_computed_in_float32(config: LayerConfig) -> None:
    """Raise unless a quantized layer's biases, scales and outputs are float32."""
    if config.dtype != "float32":
        raise ArgumentError(
            f"argument 'dtype' of a {config.kind} must be float32, got {describe(config.dtype)}"
        )


@dataclasses.dataclass(frozen=True)
class QuantizedFastFeedForwardConfig(FastFeedForwardConfig):
    """Config of QuantizedFastFeedForward: a FastFeedForward with weights of a narrow type."""

    kind: ClassVar[str] = "QuantizedFastFeedForward"

    weights: str = dataclasses.field(kw_only=True)
    """``"bfloat16"`` or ``"int8"``; other parameters and the arithmetic are float32."""

    def _check_own(self) -> None:
        super()._check_own()
        check_weights(self.weights)
        _check_computed_in_float32(self)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter; int8 weights have a scale per row."""
        shapes = super().shapes()
        if self.weights == "int8":
            nodes = (self.trees, node_count(self.depth))
            shapes |= {"scale_in": nodes, "scale_out": (*nodes, *self.side_axes)}
        return shapes

    def dtypes(self) -> dict[str, str]:
        """Return the name and type of every parameter."""
        narrow = {"weights_in": self.weights, "weights_out": self.weights}
        return super().dtypes() | narrow


@dataclasses.dataclass(frozen=True)
class QuantizedLeafFeedForwardConfig(LeafFeedForwardConfig):
    """Config of QuantizedLeafFeedForward: a LeafFeedForward with leaves of a narrow type."""

    kind: ClassVar[str] = "QuantizedLeafFeedForward"

    weights: str = dataclasses.field(kw_only=True)
    """``"bfloat16"`` or ``"int8"``; other parameters and the arithmetic are float32.

    It applies to the leaves. The gates, which are few, stay the same, so no route changes.
    """

    def _check_own(self) -> None:
        super()._check_own()
        check_weights(self.weights)
        _check_computed_in_float32(self)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter; int8 weights have two scales per neuron."""
        shapes = super().shapes()
        if self.weights == "int8":
            shapes["leaf_scale_in"] = shapes["leaf_scale_out"] = shapes["leaf_bias_in"]
        return shapes

    def dtypes(self) -> dict[str, str]:
        """Return the name and type of every parameter."""
        narrow = {"leaf_weights_in": self.weights, "leaf_weights_out": self.weights}
        return super().dtypes() | narrow


def _check_int8(config: ArraysConfig, weights: Any) -> None:
    """Raise unless a layer of dense products has a type of weights that its kernels multiply."""
    if check_weights(weights) != "int8":
        raise ArgumentError(
            f"argument 'weights' must be 'int8' for dense products, got {describe(weights)}"
        )
    if max(max(shape) for shape in config.shapes().values()) > MOST_INT8_TERMS:
        raise ArgumentError(
            f"argument 'weights' must not be 'int8' for more than {MOST_INT8_TERMS:,} inputs, "
            "whose sums would not fit into int32"
        )


@dataclasses.dataclass(frozen=True)
class QuantizedDenseFeedForwardConfig(DenseFeedForwardConfig):
    """Config of QuantizedDenseFeedForward: a DenseFeedForward with int8 weights."""

    kind: ClassVar[str] = "QuantizedDenseFeedForward"

    weights: str = dataclasses.field(kw_only=True)
    """``"int8"``. Rows are rounded to int8 too; other parameters and outputs are float32."""

    def _check_own(self) -> None:
        super()._check_own()
        _check_computed_in_float32(self)
        _check_int8(self, self.weights)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter; weights have a scale per column."""
        return super().shapes() | {"scale_in": (self.width,), "scale_out": (self.output_dim,)}

    def dtypes(self) -> dict[str, str]:
        """Return the name and type of every parameter."""
        return super().dtypes() | {"weights_in": self.weights, "weights_out": self.weights}


@dataclasses.dataclass(frozen=True)
class DenseConfig(ArraysConfig):
    """Config of Dense, a projection."""

    input_dim: int
    """Input width I."""
    output_dim: int
    """Output width O."""
    bias: bool = True
    """Whether there is a bias."""
    dtype: Any = dataclasses.field(default="float32", kw_only=True)

    def __post_init__(self) -> None:
        self._set("bias", check_flag("bias", self.bias))
        self._finish("a Dense", input_dim=1, output_dim=1)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter."""
        shapes: Shapes = {"weights": (self.output_dim, self.input_dim)}
        if self.bias:
            shapes["bias"] = (self.output_dim,)
        return shapes


@dataclasses.dataclass(frozen=True)
class LayerNormConfig(ArraysConfig):
    """Config of LayerNorm."""

    width: int
    """Width D of a row."""
    eps: float = 1e-12
    """Number that is added to the variance."""
    dtype: Any = dataclasses.field(default="float32", kw_only=True)

    def __post_init__(self) -> None:
        self._set("eps", check_number("eps", self.eps, 0.0))
        self._finish("a LayerNorm", width=1)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter."""
        return {"scale": (self.width,), "bias": (self.width,)}


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig(ArraysConfig):
    """Config of Embedding."""

    vocabulary: int
    """Number of tokens V."""
    width: int
    """Width D of a token's vector; it must be even, because sines and cosines come in pairs."""
    positions: int
    """Length of the longest sequence."""
    padding_id: int = 0
    """The token that pads sequences; lookups of it add nothing to its vector's gradient."""
    dtype: Any = dataclasses.field(default="float32", kw_only=True)

    def __post_init__(self) -> None:
        self._finish("an Embedding", vocabulary=1, width=2, positions=1, padding_id=0)
        if self.width % 2:
            raise ArgumentError(f"argument 'width' must be even, got {self.width}")
        check_integer("padding_id", self.padding_id, 0, self.vocabulary - 1)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter."""
        return {"words": (self.vocabulary, self.width), "position_scale": (1,)}


@dataclasses.dataclass(frozen=True)
class LearnedEmbeddingConfig(ArraysConfig):
    """Config of LearnedEmbedding."""

    vocabulary: int
    """Number of tokens V."""
    width: int
    """Width D of a token's vector."""
    positions: int
    """Length P of the longest sequence."""
    types: int = 2
    """Number of types K of a token, such as which of two texts it belongs to."""
    padding_id: int = 0
    """The token that pads sequences; lookups of it add nothing to its vector's gradient."""
    dtype: Any = dataclasses.field(default="float32", kw_only=True)

    def __post_init__(self) -> None:
        lows = {"vocabulary": 1, "width": 1, "positions": 1, "types": 1, "padding_id": 0}
        self._finish("a LearnedEmbedding", **lows)
        check_integer("padding_id", self.padding_id, 0, self.vocabulary - 1)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter."""
        counts = {"words": self.vocabulary, "positions": self.positions, "types": self.types}
        return {name: (count, self.width) for name, count in counts.items()}


@dataclasses.dataclass(frozen=True)
class AttentionConfig(ArraysConfig):
    """Config of Attention."""

    width: int
    """Width D of a position."""
    heads: int
    """Number of heads, each of width D / heads."""
    bias: bool = dataclasses.field(default=False, kw_only=True)
    """Whether both projections have a bias."""
    dtype: Any = dataclasses.field(default="float32", kw_only=True)

    def __post_init__(self) -> None:
        self._set("bias", check_flag("bias", self.bias))
        self._finish("an Attention", width=1, heads=1)
        if self.width % self.heads:
            raise ArgumentError(
                f"argument 'heads' must divide the width {self.width}, got {self.heads}"
            )

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.width // self.heads

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter."""
        shapes: Shapes = {"weights_qkv": (3 * self.width, self.width)}
        if self.bias:
            shapes["bias_qkv"] = (3 * self.width,)
        shapes["weights_out"] = (self.width, self.width)
        if self.bias:
            shapes["bias_out"] = (self.width,)
        return shapes


@dataclasses.dataclass(frozen=True)
class QuantizedAttentionConfig(AttentionConfig):
    """Config of QuantizedAttention: an Attention whose projections have int8 weights."""

    weights: str = dataclasses.field(kw_only=True)
    """``"int8"``. Rows are rounded to int8 too; other parameters and outputs are float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype != "float32":
            raise ArgumentError(
                "argument 'dtype' of a QuantizedAttention must be float32, "
                f"got {describe(self.dtype)}"
            )
        _check_int8(self, self.weights)

    def shapes(self) -> Shapes:
        """Return the name and shape of every parameter; weights have a scale per column."""
        return super().shapes() | {"scale_qkv": (3 * self.width,), "scale_out": (self.width,)}

    def dtypes(self) -> dict[str, str]:
        """Return the name and type of every parameter."""
        return super().dtypes() | {"weights_qkv": self.weights, "weights_out": self.weights}
