"""A trained layer together with the meaning of its outputs: classes, names, units.

A predictor is saved as a layer's file with one more entry of metadata. So `fffcpu.load` reads the
layer from it, for users who need only arrays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints import native
from fffcpu.checks import as_real_array, check_elements
from fffcpu.columns.encoding import Column, Encoding, Unknown
from fffcpu.columns.fields import Classes
from fffcpu.columns.frames import encode_frame, frame_array, is_frame
from fffcpu.errors import (
    ArgumentError,
    CheckpointError,
    ShapeError,
    describe,
)
from fffcpu.inference.routes import RouteStatistics, final_nodes
from fffcpu.layers import AnyLayer
from fffcpu.layers import load as load_layer

__all__ = ["NOTE", "ROUTES_NOTE", "Predictor", "Schema", "load_model", "softmax"]

Array = NDArray[Any]

_LOGGER = logging.getLogger(__name__)

NOTE = "fffcpu.predictor"
ROUTES_NOTE = "fffcpu.routes"
"""The metadata keys of a predictor's file. They do not change when this module moves."""


@dataclasses.dataclass(frozen=True)
class Schema:
    """The meaning of a layer's inputs and outputs.

    Parameters
    ----------
    task : {"classification", "multilabel", "regression"}
        Type of the outputs: scores of classes, where a row has one class; scores of labels, where
        a row has any number of labels; or numbers.
    classes : tuple of str, int, float or bool
        The class or label of each output; empty for regression.
    features : tuple of str, optional
        Names of the input columns.
    target : tuple of str, optional
        Names of the targets: one name, or for regression as many as outputs.
    offset : tuple of float
        For regression: numbers added to the outputs. A FastFeedForward has no output bias, so this
        is the mean of its training targets.
    columns : tuple of Column, optional
        How columns become the layer's inputs, one item per column. By default each column is an
        input, unchanged.
    exact : bool
        For regression: whether the offset is added in float64, because it is too large for the
        layer's dtype, compared with the changes of the outputs. Predictions are then float64.

    Raises
    ------
    ArgumentError
        If the task is unknown, or classes, offset or columns do not fit it.
    """

    task: str
    classes: Classes = ()
    features: tuple[str, ...] | None = None
    target: tuple[str, ...] | None = None
    offset: tuple[float, ...] = ()
    columns: tuple[Column, ...] | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if self.task not in ("classification", "multilabel", "regression"):
            raise ArgumentError(
                "argument 'task' must be classification, multilabel or regression, "
                f"got {describe(self.task)}"
            )
        if bool(self.classes) == (self.task == "regression"):
            raise ArgumentError(
                "argument 'classes' must be given for classification and multilabel, and not for "
                "regression, "
                f"got {describe(self.classes)} for {self.task}"
            )
        if len(set(self.classes)) < len(self.classes):
            raise ArgumentError(
                f"argument 'classes' must be different labels, got {describe(self.classes)}"
            )
        names, columns = self.features, self.columns
        if columns is not None and not columns:
            raise ArgumentError("argument 'columns' must have at least one item, got none")
        if columns is not None and names is not None and len(columns) != len(names):
            raise ArgumentError(
                f"argument 'columns' must have {len(names)} items, like 'features', "
                f"got {len(columns)}"
            )

    @property
    def outputs(self) -> int | None:
        """The number of outputs that the layer must have; None if it is not known."""
        return len(self.classes) or len(self.offset) or None

    @functools.cached_property
    def labels(self) -> Array:
        """The classes as an array."""
        return np.asarray(self.classes)

    @functools.cached_property
    def encoding(self) -> Encoding | None:
        """How columns become inputs; None if each column is an input, unchanged."""
        if self.columns is None:
            return None
        names = self.features or tuple(f"x{place}" for place in range(len(self.columns)))
        return Encoding(names, self.columns)

    @functools.cached_property
    def table_encoding(self) -> Encoding | None:
        """The columns by name, also if they are plain numbers; None if they have no names."""
        if self.features is None:
            return None
        return self.encoding or Encoding(self.features, [Column()] * len(self.features))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; entries of later versions are left out where not needed."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.columns is None:
            del values["columns"]
        else:
            values["columns"] = [_short(column) for column in self.columns]
        if not self.exact:
            del values["exact"]
        return values

    @classmethod
    def from_dict(cls, values: Any) -> Schema:
        """Return the schema of JSON values that `to_dict` gave.

        Raises
        ------
        CheckpointError
            If the values are not a schema.
        """
        fields = dataclasses.fields(cls)
        names = {field.name for field in fields}
        needed = names - {"columns", "exact"}
        if not isinstance(values, dict) or not needed <= set(values) <= names:
            raise CheckpointError(f"must have the entries {sorted(names)}, got {describe(values)}")
        tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        kinds: dict[str, tuple[type, ...]] = {
            "features": (str,),
            "target": (str,),
            "classes": (str, int, float, bool),
            "offset": (float,),
            "columns": (dict,),
        }
        for name, allowed in kinds.items():
            value = tuples.get(name)
            if value is None and name in ("features", "target", "columns"):
                continue
            if not isinstance(value, tuple) or not all(type(item) in allowed for item in value):
                raise CheckpointError(f"must have a list of '{name}', got {describe(value)}")
        if type(tuples.get("exact", False)) is not bool:
            raise CheckpointError(f"must have a truth value 'exact', got {describe(tuples)}")
        if tuples.get("columns") is not None:
            tuples["columns"] = tuple(map(_parse_column, tuples["columns"]))
        return cls(**tuples)


_PLAIN = dataclasses.asdict(Column())
"""The fields of a column of plain numbers."""

_TYPES = {name: type(value) for name, value in _PLAIN.items()} | {"categories": list}
_TYPES |= dict.fromkeys(("fill", "low", "high"), float)
"""Types of a column's fields in a file."""


def _short(column: Column) -> dict[str, Any]:
    """Return the fields of a column that differ from those of plain numbers."""
    values = {name: getattr(column, name) for name in _PLAIN}
    return {name: value for name, value in values.items() if value != _PLAIN[name]}


def _parse_column(values: dict[str, Any]) -> Column:
    """Return the column of JSON values."""
    if any(type(value) is not _TYPES.get(name) for name, value in values.items()):
        raise CheckpointError(f"must have columns with {sorted(_PLAIN)}, got {describe(values)}")
    texts = values.get("categories", [])
    if not all(isinstance(text, str) for text in texts):
        raise CheckpointError(f"must have texts as 'categories', got {describe(texts)}")
    try:
        return Column(**{**values, "categories": tuple(texts)})
    except ArgumentError as error:
        raise CheckpointError(f"has an invalid column: {error}") from error


class Predictor:
    """A layer and the meaning of its outputs.

    Parameters
    ----------
    layer : layer
        Anything that maps rows (..., I) to (..., O).
    schema : Schema
        The meaning of the inputs and outputs.
    routes : RouteStatistics, optional
        What the training rows in each leaf were, for explanations.

    Raises
    ------
    ShapeError
        If the numbers of outputs and classes differ, or those of inputs and features.

    Examples
    --------
    >>> import numpy as np
    >>> from fffcpu import FastFeedForward, Schema, Predictor
    >>> layer = FastFeedForward(4, 3, depth=2, rng=0)
    >>> predictor = Predictor(layer, Schema("classification", ("cat", "dog", "owl")))
    >>> predictor.predict(np.zeros((2, 4))).shape, predictor.probabilities(np.zeros((2, 4))).shape
    ((2,), (2, 3))
    """

    layer: AnyLayer
    schema: Schema
    routes: RouteStatistics | None

    def __init__(
        self, layer: AnyLayer, schema: Schema, routes: RouteStatistics | None = None
    ) -> None:
        config = layer.config
        if schema.outputs is not None and schema.outputs != config.output_dim:
            raise ShapeError(
                f"argument 'schema' must have {config.output_dim} outputs, like the layer, "
                f"got {schema.outputs}"
            )
        inputs = schema.encoding.width if schema.encoding else len(schema.features or ())
        if inputs and inputs != config.input_dim:
            raise ShapeError(
                f"argument 'schema' must have {config.input_dim} features, like the layer, "
                f"got {inputs}"
            )
        self.layer = layer
        self.schema = schema
        self.routes = routes

    def predict(self, x: Any) -> Array:
        """Return the class of each row, its labels, or its predicted numbers.

        Parameters
        ----------
        x : array_like of shape (..., C), or data frame
            Rows as measured: scaling is part of the model. A frame of pandas, polars or pyarrow,
            or a mapping of names to columns, is taken by the names of its columns: they may be in
            any order, and others are ignored.

        Returns
        -------
        array of shape (...,) or (..., O)
            For classification, classes as they were in training; the first of equal scores is
            taken. For several labels per row, 1 where a score is above 0, else 0. For
            regression, numbers; the last axis is dropped if there is one target.
        """
        return self.predict_scores(self.scores(x))

    def predict_scores(self, scores: Array) -> Array:
        """Return what `predict` returns for rows with these scores (..., O)."""
        if self.schema.task == "classification":
            labels: Array = self.schema.labels[scores.argmax(axis=-1)]
            return labels
        if self.schema.task == "multilabel":
            return (scores > 0).astype(np.int64)
        return scores[..., 0] if scores.shape[-1] == 1 else scores

    def scores(self, x: Any) -> Array:
        """Return the layer's outputs (..., O); for regression, with the offset added.

        Raises
        ------
        ArgumentError
            If a number is not finite in the layer's dtype.
        DataError
            If a column of a frame is missing, or has a value that does not fit it.
        ShapeError, ArgumentTypeError
            If an array has another number of columns, or holds no numbers.
        """
        if type(x) is np.ndarray and self.schema.columns is None:
            return self._outputs(x)
        return self._outputs(self.inputs(x))

    def table_scores(self, x: Array) -> Array:
        """Return the scores of rows (R, C) as a `fffcpu.data.Table` holds them.

        The table must have been read with the model's encoding, so that its numbers of categories
        are those of the model.
        """
        encoding = self.schema.encoding
        return self._outputs(x if encoding is None else encoding.expand(x))

    def _outputs(self, inputs: Any) -> Array:
        """Return the outputs for the layer's inputs."""
        scores: Array = self.layer(inputs)
        schema = self.schema
        if not np.isfinite(scores).all():
            self._blame(inputs)
        if schema.offset:
            if schema.exact:
                scores = scores.astype(np.float64)
            scores += np.asarray(schema.offset, scores.dtype)
        return scores

    def _blame(self, inputs: Any) -> None:
        """Raise the error about inputs that give outputs which are not finite."""
        array = np.asarray(inputs)
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(self.layer.config.dtype))
        wanted = f"finite numbers that {self.layer.config.dtype} can hold"
        check_elements(array, "x", finite, wanted)
        raise ArgumentError(f"argument 'x' must hold {wanted}, got outputs that are not finite")

    def inputs(self, x: Any, unknown: Unknown | None = None) -> Any:
        """Return what the layer takes for rows as measured.

        Parameters
        ----------
        x : array_like of shape (..., C), or data frame
            As for `predict`.
        unknown : Counter, optional
            Counts the texts of a frame that are no categories of the model, by column and text.

        Returns
        -------
        array of shape (..., I)

        Raises
        ------
        DataError, ShapeError, ArgumentTypeError
            As for `scores`.
        """
        schema = self.schema
        if is_frame(x):
            if schema.table_encoding is not None:
                x = self._encoded(x, schema.table_encoding, unknown)
                return x if schema.encoding is None else schema.encoding.expand(x)
            x = frame_array(x)
        if schema.encoding is None:
            return x
        schema.encoding.check_numbers("argument 'x'")
        return schema.encoding.expand(self._numbers(x, schema.encoding))

    def _encoded(self, frame: Any, encoding: Encoding, unknown: Unknown | None) -> Array:
        """Return a frame as a table of numbers; count or log the unknown values."""
        seen: Unknown = Counter() if unknown is None else unknown
        table = encode_frame(frame, encoding, seen)
        if unknown is None and seen:
            name, text = next(iter(seen))
            _LOGGER.warning(
                "number of unknown values: %d, such as %r in column %r",
                seen.total(),
                text,
                name,
            )
        return table

    def _numbers(self, x: Any, encoding: Encoding) -> Array:
        """Return an array of rows as a table of numbers."""
        array = as_real_array(x, "x")
        missing = np.array([column.fill is not None for column in encoding.columns])
        if array.dtype.kind == "f" and array.ndim and array.shape[-1] == len(missing):
            right = np.isfinite(array) | (np.isnan(array) & missing)
            check_elements(array, "x", right, "finite numbers")
        return array

    def probabilities(self, x: Any) -> Array:
        """Return each class's probability (..., O): softmax of the scores; sigmoid for labels.

        Raises
        ------
        ArgumentError
            If this is not a classifier.
        """
        if self.schema.task == "regression":
            raise ArgumentError("only a classifier has probabilities, but this is a regression")
        return self.score_probabilities(self.scores(x))

    def score_probabilities(self, scores: Array) -> Array:
        """Return what `probabilities` returns for these scores (..., O), which it may overwrite."""
        if self.schema.task == "multilabel":
            from scipy.special import expit

            chances: Array = expit(scores)
            return chances
        return softmax(scores)

    def explain(self, x: Any) -> list[Array]:
        """Return what the training rows in the leaves of some rows were.

        Parameters
        ----------
        x : array_like of shape (R, C), or data frame
            As for `predict`.

        Returns
        -------
        list of array of shape (R, C) or (R, 3)
            For each tree: the number of training rows of each class that share the row's leaf; or
            their number, and the mean and the standard deviation of the first target.

        Raises
        ------
        ShapeError
            If ``x`` has not 2 axes.
        ArgumentError
            If the model has no such statistics: `fffcpu.recipes.fit` makes them, for layers with
            trees.
        """
        if self.routes is None:
            raise ArgumentError(
                "this predictor has no statistics of its training rows; fffcpu train writes them "
                "for layers with trees"
            )
        inputs = np.asarray(self.inputs(x))
        if inputs.ndim != 2:
            raise ShapeError(f"argument 'x' must have 2 axes, rows and columns, got {describe(x)}")
        return self.routes.explain(final_nodes(self.layer, inputs))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write layer and schema to a file, which `fffcpu.load` reads as the layer alone.

        Parameters
        ----------
        path : path
            File to write. An existing file is replaced once the whole new file is on the disk.
        """
        notes = {NOTE: json.dumps(self.schema.to_dict(), sort_keys=True)}
        if self.routes is not None:
            notes[ROUTES_NOTE] = json.dumps(self.routes.to_dict(), sort_keys=True)
        self.layer.save(path, notes=notes)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote.

        Raises
        ------
        CheckpointError
            If the file is damaged, or contains a layer without a schema.
        OSError
            If it cannot be read.
        """
        predictor = cls._read(path, load_layer(path))
        if predictor is None:
            raise CheckpointError(
                f"file '{os.fsdecode(path)}' holds a layer without a schema of its outputs; "
                "fffcpu.load reads it"
            )
        return predictor

    @classmethod
    def _read(cls, path: str | os.PathLike[str], layer: AnyLayer) -> Self | None:
        """Return the predictor of the layer in a file; None if the file has no schema."""
        notes = native.read_notes(path, NOTE, ROUTES_NOTE)
        if notes[NOTE] is None:
            return None
        with _named_note(path, NOTE):
            schema = Schema.from_dict(notes[NOTE])
        with _named_note(path, ROUTES_NOTE):
            values = notes[ROUTES_NOTE]
            routes = None if values is None else RouteStatistics.from_dict(values)
        with _named_note(path, NOTE):
            return cls(layer, schema, routes)

    def __repr__(self) -> str:
        what = (
            _names(self.schema.classes, "classes")
            if self.schema.classes
            else _names(self.schema.target or (), "targets")
        )
        return f"<Predictor of {what}: {self.layer!r}>"


@contextlib.contextmanager
def _named_note(path: str | os.PathLike[str], key: str) -> Iterator[None]:
    """Context that puts the names of the file and of the metadata before errors about a value."""
    try:
        yield
    except ValueError as error:
        raise CheckpointError(f"file '{os.fsdecode(path)}': metadata '{key}' {error}") from error


def softmax(scores: Array) -> Array:
    """Return the probabilities of scores (..., C), in the memory of the scores."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def load_model(path: str | os.PathLike[str]) -> tuple[AnyLayer, Predictor | None]:
    """Read the layer in a file, and its predictor if the file has a schema.

    Parameters
    ----------
    path : path
        A file that the ``save`` of a layer or of a predictor wrote.

    Returns
    -------
    layer : layer
    predictor : Predictor or None
        The predictor that holds this layer.

    Raises
    ------
    CheckpointError, OSError
        As for `Predictor.load`.
    """
    layer = load_layer(path)
    return layer, Predictor._read(path, layer)


def _names(values: Sequence[Any], what: str) -> str:
    """Return the names, or their number if they are many."""
    text = ", ".join(map(str, values))
    return text if values and len(text) <= 60 else f"{len(values)} {what}"
