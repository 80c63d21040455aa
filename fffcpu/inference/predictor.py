"""A trained layer together with the meaning of its outputs: classes, names, units.

A predictor is saved as a layer's file with one more entry of metadata. So `fffcpu.load` reads the
layer from it, for users who need only arrays.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints import native
from fffcpu.errors import ArgumentError, CheckpointError, ShapeError, describe
from fffcpu.layers import load as load_layer

__all__ = ["NOTE", "Predictor", "Schema", "load_model", "softmax"]

Array = NDArray[Any]

NOTE = "fffcpu.predictor"
"""The metadata key of a predictor's file. It does not change when this module moves."""


@dataclasses.dataclass(frozen=True)
class Schema:
    """The meaning of a layer's inputs and outputs.

    Parameters
    ----------
    task : {"classification", "multilabel", "regression"}
        Type of the outputs: scores of classes, where a row has one class; scores of labels, where
        a row has any number of labels; or numbers.
    classes : tuple of str or of int
        The class or label of each output; empty for regression.
    features : tuple of str, optional
        Names of the input columns.
    target : tuple of str, optional
        Names of the targets: one name, or for regression as many as outputs.
    offset : tuple of float
        For regression: numbers added to the outputs. A FastFeedForward has no output bias, so this
        is the mean of its training targets.

    Raises
    ------
    ArgumentError
        If the task is unknown, or classes or offset do not fit it.
    """

    task: str
    classes: tuple[str, ...] | tuple[int, ...] = ()
    features: tuple[str, ...] | None = None
    target: tuple[str, ...] | None = None
    offset: tuple[float, ...] = ()

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

    @property
    def outputs(self) -> int | None:
        """The number of outputs that the layer must have; None if it is not known."""
        return len(self.classes) or len(self.offset) or None

    @classmethod
    def from_dict(cls, values: Any) -> Schema:
        """Return the schema of JSON values that ``dataclasses.asdict`` of a schema gave.

        Raises
        ------
        CheckpointError
            If the values are not a schema.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise CheckpointError(f"must have the entries {sorted(names)}, got {describe(values)}")
        tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        kinds = {"features": (str,), "target": (str,), "classes": (str, int), "offset": (float,)}
        for name, allowed in kinds.items():
            value = tuples[name]
            if value is None and name in ("features", "target"):
                continue
            if not isinstance(value, tuple) or not all(type(item) in allowed for item in value):
                raise CheckpointError(f"must have a list of '{name}', got {describe(value)}")
        return cls(**tuples)


class Predictor:
    """A layer and the meaning of its outputs.

    Parameters
    ----------
    layer : layer
        Anything that maps rows (..., I) to (..., O).
    schema : Schema
        The meaning of the inputs and outputs.

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

    def __init__(self, layer: Any, schema: Schema) -> None:
        config = layer.config
        if schema.outputs is not None and schema.outputs != config.output_dim:
            raise ShapeError(
                f"argument 'schema' must have {config.output_dim} outputs, like the layer, "
                f"got {schema.outputs}"
            )
        if schema.features is not None and len(schema.features) != config.input_dim:
            raise ShapeError(
                f"argument 'schema' must have {config.input_dim} features, like the layer, "
                f"got {len(schema.features)}"
            )
        self.layer = layer
        self.schema = schema

    def predict(self, x: Any) -> Array:
        """Return the class of each row, its labels, or its predicted numbers.

        Parameters
        ----------
        x : array_like of shape (..., I)
            Rows as measured: scaling is part of the layer.

        Returns
        -------
        array of shape (...,) or (..., O)
            For classification, classes as strings or integers; among equal scores, the first class
            is taken. For several labels per row, 1 where a score is above 0, else 0. For
            regression, numbers; the last axis is dropped if there is one target.
        """
        scores = self.scores(x)
        if self.schema.task == "classification":
            labels: Array = np.asarray(self.schema.classes)[scores.argmax(axis=-1)]
            return labels
        if self.schema.task == "multilabel":
            return (scores > 0).astype(np.int64)
        return scores[..., 0] if scores.shape[-1] == 1 else scores

    def scores(self, x: Any) -> Array:
        """Return the layer's outputs (..., O); for regression, with the offset added."""
        scores: Array = self.layer(x)
        if self.schema.offset:
            scores += np.asarray(self.schema.offset, scores.dtype)
        return scores

    def probabilities(self, x: Any) -> Array:
        """Return each class's probability (..., O): softmax of the scores; sigmoid for labels.

        Raises
        ------
        ArgumentError
            If this is not a classifier.
        """
        if self.schema.task == "regression":
            raise ArgumentError("only a classifier has probabilities, but this is a regression")
        scores = self.scores(x)
        if self.schema.task == "multilabel":
            from scipy.special import expit

            chances: Array = expit(scores)
            return chances
        return softmax(scores)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write layer and schema to a file, which `fffcpu.load` reads as the layer alone.

        Parameters
        ----------
        path : path
            File to write. An existing file is replaced once the whole new file is on the disk.
        """
        note = json.dumps(dataclasses.asdict(self.schema), sort_keys=True)
        self.layer.save(path, notes={NOTE: note})

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
        layer = load_layer(path)
        note = native.read_note(path, NOTE)
        if note is None:
            raise CheckpointError(
                f"file '{os.fsdecode(path)}' holds a layer without a schema of its outputs; "
                "fffcpu.load reads it"
            )
        try:
            return cls(layer, Schema.from_dict(note))
        except ValueError as error:
            raise CheckpointError(
                f"file '{os.fsdecode(path)}': metadata '{NOTE}' {error}"
            ) from error

    def __repr__(self) -> str:
        what = (
            _names(self.schema.classes, "classes")
            if self.schema.classes
            else _names(self.schema.target or (), "targets")
        )
        return f"<Predictor of {what}: {self.layer!r}>"


def softmax(scores: Array) -> Array:
    """Return the probabilities of scores (..., C), in the memory of the scores."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def load_model(path: str | os.PathLike[str]) -> tuple[Any, Schema | None]:
    """Read the layer in a file, and its schema if the file has one.

    Parameters
    ----------
    path : path
        A file that the ``save`` of a layer or of a predictor wrote.

    Returns
    -------
    layer : layer
    schema : Schema or None

    Raises
    ------
    CheckpointError, OSError
        As for `Predictor.load`.
    """
    if native.read_note(path, NOTE) is None:
        return load_layer(path), None
    predictor = Predictor.load(path)
    return predictor.layer, predictor.schema


def _names(values: Sequence[Any], what: str) -> str:
    """Return the names, or their number if they are many."""
    text = ", ".join(map(str, values))
    return text if values and len(text) <= 60 else f"{len(values)} {what}"
