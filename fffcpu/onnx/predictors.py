"""Predictors in operators of ONNX: columns become inputs of the layer, outputs get their meaning.

As in `fffcpu.columns.encoding`, values are filled, limited, shifted and scaled in float64::

    x (B, C), or a tensor (B,) per column
      values   --fill, limit--> --(value - offset) / scale--> |
      missing  --1 or 0-------------------------------------> | in the order of the layer's
      days     --sine and cosine of year, week and day------> | inputs, then in its dtype
      texts    --LabelEncoder--> --1 for the own category---> |

ONNX has no operator that reads dates, so a column of dates is one of days since 1970.

Shapes: B rows, C columns, V of them with values, I input width, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.columns.encoding import PERIODS, TURN_DIGITS, Column, Encoding
from fffcpu.columns.fields import MISSING, value_of
from fffcpu.errors import ArgumentError, describe
from fffcpu.inference.predictor import Predictor, Schema
from fffcpu.onnx.graph import ML, Graph
from fffcpu.onnx.layers import add_layer

__all__ = ["Output", "add_inputs", "add_outputs", "add_rows"]

Array = NDArray[Any]

ROWS = "rows"
"""Name of the number of rows."""

NAMES = ("label", "probabilities", "prediction")
"""Names of the outputs."""


class Output(NamedTuple):
    """An output, as `Graph.output` takes it."""

    name: str
    value: str
    dtype: DTypeLike
    shape: tuple[int | str, ...]


class _Piece(NamedTuple):
    """Some inputs of the layer."""

    value: str
    """The inputs (B, ...) in float64."""
    places: Sequence[int]
    """Their places among all inputs."""


def add_inputs(graph: Graph, predictor: Predictor) -> str:
    """Add the inputs of a predictor, and return those of its layer (B, I), in its dtype.

    Raises
    ------
    ArgumentError
        If a column has no name, or that of an output.
    """
    schema, config = predictor.schema, predictor.layer.config
    encoding = schema.encoding
    if encoding is None:
        return graph.input("x", config.dtype, (ROWS, config.input_dim))
    if all(column.kind == "number" for column in encoding.columns):
        return add_rows(
            graph, graph.input("x", np.float64, (ROWS, len(encoding.columns))), predictor
        )
    for name in encoding.names:
        if not name or name in NAMES:
            raise ArgumentError(
                f"argument 'model' must have columns with names other than {', '.join(NAMES)}, "
                f"because these are the names of outputs, got {describe(name)}"
            )
    texts = [column.kind == "category" for column in encoding.columns]
    inputs = [
        graph.input(name, np.str_ if text else np.float64, (ROWS,))
        for name, text in zip(encoding.names, texts, strict=True)
    ]
    columns = [graph.add("Unsqueeze", name, np.array([1])) for name in inputs]
    values = [name for name, text in zip(columns, texts, strict=True) if not text]
    pieces = _category_pieces(graph, columns, encoding)
    if values:
        pieces += _value_pieces(graph, graph.add("Concat", *values, axis=1), encoding)
    return graph.cast(_in_order(graph, pieces), config.dtype)


def add_rows(graph: Graph, x: str, predictor: Predictor) -> str:
    """Return the inputs of the layer (B, I) for rows of numbers (B, C) of any float type."""
    encoding, dtype = predictor.schema.encoding, predictor.layer.config.dtype
    if encoding is not None:
        x = graph.cast(x, np.float64)
        x = _in_order(graph, _value_pieces(graph, x, encoding))
    return graph.cast(x, dtype)


def add_outputs(graph: Graph, inputs: str, predictor: Predictor) -> list[Output]:
    """Add the layer of a predictor, and return its outputs, for the layer's inputs (B, I).

    Raises
    ------
    ArgumentError
        If a class is an integer that int64 does not hold.
    """
    schema, config = predictor.schema, predictor.layer.config
    scores, width = add_layer(graph, inputs, predictor.layer), config.output_dim
    if schema.task == "regression":
        return [_prediction(graph, scores, schema, np.dtype(config.dtype), width)]
    if schema.task == "multilabel":
        above = graph.add("Greater", scores, np.zeros((), config.dtype))
        label = Output("label", graph.cast(above, np.int64), np.int64, (ROWS, width))
        chances = graph.add("Sigmoid", scores)
    else:
        classes = _classes(schema)
        best = graph.add("ArgMax", scores, axis=1, keepdims=0)
        named = graph.add("Gather", graph.constant(classes, "classes"), best, axis=0)
        label = Output("label", named, classes.dtype, (ROWS,))
        chances = graph.add("Softmax", scores, axis=1)
    return [label, Output("probabilities", chances, config.dtype, (ROWS, width))]


def _prediction(
    graph: Graph, scores: str, schema: Schema, dtype: np.dtype[Any], width: int
) -> Output:
    """Return the predicted numbers, as `Predictor.predict` does."""
    if schema.offset:
        if schema.exact:
            scores, dtype = graph.cast(scores, np.float64), np.dtype(np.float64)
        scores = graph.add("Add", scores, np.array(schema.offset, dtype))
    if width == 1:
        scores = graph.add("Squeeze", scores, np.array([1]))
    return Output("prediction", scores, dtype, (ROWS,) if width == 1 else (ROWS, width))


def _classes(schema: Schema) -> Array:
    labels = schema.labels
    if labels.dtype.kind not in "Ubif":
        raise ArgumentError(
            "argument 'model' must have classes that are texts, truth values, floats or integers "
            f"of 64 bits, got {describe(schema.classes)}"
        )
    return labels.astype(np.int64) if labels.dtype.kind == "i" else labels


def _in_order(graph: Graph, pieces: Sequence[_Piece]) -> str:
    """Return all inputs (B, I) side by side."""
    joined = graph.add("Concat", *(piece.value for piece in pieces), axis=1)
    places = np.concatenate([piece.places for piece in pieces]).astype(np.int64)
    order = places.argsort()
    if (order == np.arange(len(order))).all():
        return joined
    return graph.add("Gather", joined, order, axis=1)


def _category_pieces(graph: Graph, columns: Sequence[str], encoding: Encoding) -> list[_Piece]:
    """Return the inputs of columns of texts (B, 1): 1 for the category of a row, else 0."""
    pieces, following = [], 0
    for name, column in zip(columns, encoding.columns, strict=True):
        start, following = following, following + column.width
        if column.kind == "category" and column.width:
            texts, codes = zip(*_codes(column).items(), strict=True)
            code = graph.add(
                "LabelEncoder",
                name,
                domain=ML,
                keys_strings=list(texts),
                values_int64s=list(codes),
                default_int64=_default(column),
            )
            own = graph.add("Equal", code, np.arange(column.width))
            pieces.append(_Piece(graph.cast(own, np.float64), range(start, following)))
    return pieces


def _default(column: Column) -> int:
    """Return the code of texts that are no category."""
    return len(column.categories) if column.others else -1


def _codes(column: Column) -> dict[str, int]:
    """Return the code of each text that stands for a category, in its usual spellings."""
    texts = dict.fromkeys(column.categories)
    for category in column.categories:
        value = value_of(category)
        if isinstance(value, float):
            texts[repr(value)] = None
            if value.is_integer():
                texts[str(int(value))] = None
        elif value:
            texts |= dict.fromkeys((value, value.lower(), value.upper()))
    texts |= dict.fromkeys(sorted(MISSING))
    known = zip(texts, column.read(list(texts)).numbers.astype(int).tolist(), strict=True)
    found = {text: code for text, code in known if code != _default(column)}
    return found or {"": _default(column)}  # the operator must have a key


def _value_pieces(graph: Graph, x: str, encoding: Encoding) -> list[_Piece]:
    """Return the inputs of columns of numbers and days (B, V) in float64."""
    held, first = encoding.value_inputs()
    columns = [encoding.columns[place] for place in held.tolist()]
    fill, low, high = (
        np.array([default if value is None else value for value in values], np.float64)
        for default, values in (
            (np.nan, [column.fill for column in columns]),
            (-np.inf, [column.low for column in columns]),
            (np.inf, [column.high for column in columns]),
        )
    )
    limited = x
    if np.isfinite(low).any():
        limited = graph.add("Max", limited, low)
    if np.isfinite(high).any():
        limited = graph.add("Min", limited, high)
    absent = graph.add("IsNaN", x)
    limited = graph.add("Where", absent, np.clip(fill, low, high), limited)
    pieces = [_Piece(_scaled(graph, limited, columns), first.tolist())]
    indicated = [place for place, column in enumerate(columns) if column.missing]
    if indicated:
        own = graph.cast(graph.add("Gather", absent, np.array(indicated), axis=1), np.float64)
        pieces.append(
            _Piece(own, [int(first[place]) + columns[place].width - 1 for place in indicated])
        )
    dates = [place for place, column in enumerate(columns) if column.kind == "date"]
    if dates:
        days = graph.add("Where", absent, fill, x)
        days = graph.add("Gather", days, np.array(dates), axis=1)
        pieces += _waves(graph, days, first[dates])
    return pieces


def _scaled(graph: Graph, values: str, columns: Sequence[Column]) -> str:
    """Return ``(value - offset) / scale``."""
    offset = np.array([column.offset for column in columns])
    factor = np.array([1.0 / column.scale for column in columns])
    if offset.any():
        values = graph.add("Sub", values, offset)
    return graph.add("Mul", values, factor) if (factor != 1.0).any() else values


def _waves(graph: Graph, days: str, first: NDArray[np.int64]) -> list[_Piece]:
    """Return sines and cosines of days, which follow the place of the days themselves."""
    pieces, unit = [], np.array(10.0**TURN_DIGITS)
    for number, period in enumerate(PERIODS):
        turns = graph.add("Div", days, np.array(period))
        turns = graph.add("Sub", turns, graph.add("Floor", turns))
        turns = graph.add("Div", graph.add("Round", graph.add("Mul", turns, unit)), unit)
        angle = graph.add("Mul", turns, np.array(2.0 * math.pi))
        # onnxruntime has no cosine of doubles in its older versions.
        ahead = graph.add("Add", angle, np.array(0.5 * math.pi))
        for wave, phase in enumerate((angle, ahead)):
            places = (first + 1 + 2 * number + wave).tolist()
            pieces.append(_Piece(graph.add("Sin", phase), places))
    return pieces
