"""What a model gives for the rows of a partition, and how the columns of a frame of it are named.

An `Output` is what tasks call. It is a small value: the model is another argument of the task, so
that it is sent once and not with each task.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.columns.frames import frame_array, is_frame
from fffcpu.errors import ArgumentError, ArgumentTypeError, describe
from fffcpu.inference.pipelines import POOLINGS, TextClassifier, TextEmbedder
from fffcpu.inference.predictor import Predictor, load_model
from fffcpu.layers import Layer
from fffcpu.models.data_parallel import on_one_core

__all__ = ["Output", "open_model", "output_of"]

Array = NDArray[Any]

_TEXT_MODELS = (TextClassifier, TextEmbedder)


@dataclasses.dataclass(frozen=True)
class Output:
    """One of a model's outputs.

    Parameters
    ----------
    kind : {"predict", "predict_proba", "route", "embed"}
        Which one.
    names : tuple of str
        Names of its columns in a frame; a single one if each row has one value.
    pooling : str, optional
        For embeddings: see `TextEmbedder.embed`.
    normalize : bool, optional
        For embeddings: see `TextEmbedder.embed`.
    """

    kind: str
    names: tuple[str, ...]
    pooling: str | None = None
    normalize: bool | None = None

    def __call__(self, model: Any, rows: Any) -> Array:
        """Return the output for rows or texts, computed on one core."""
        if isinstance(model, Layer) and is_frame(rows):
            rows = frame_array(rows)
        with on_one_core():
            return _COMPUTATIONS[self.kind](self, model, rows)

    def _predict(self, model: Any, rows: Any) -> Array:
        if isinstance(model, TextClassifier):
            numbers = model.probabilities(rows)
            if not model.labels:
                return numbers[:, 0]
            labels: Array = np.asarray(model.labels)[numbers.argmax(axis=1)]
            return labels
        outputs: Array = model(rows) if isinstance(model, Layer) else model.predict(rows)
        return outputs

    def _predict_proba(self, model: Any, rows: Any) -> Array:
        found: Array = model.probabilities(rows)
        return found

    def _route(self, model: Any, rows: Any) -> Array:
        nodes: Array
        if isinstance(model, Predictor):
            nodes = model.layer.route(model.inputs(rows))  # type: ignore[union-attr]
        else:
            nodes = model.route(rows)
        return nodes

    def _embed(self, model: Any, rows: Any) -> Array:
        vectors: Array = model.embed(rows, self.pooling, normalize=self.normalize)
        return vectors


_COMPUTATIONS = MappingProxyType(
    {
        "predict": Output._predict,
        "predict_proba": Output._predict_proba,
        "route": Output._route,
        "embed": Output._embed,
    }
)
"""The methods by the kind of output."""


def open_model(model: Any, kind: str) -> Any:
    """Return what predicts: a layer, a predictor or a pipeline of texts.

    Parameters
    ----------
    model : layer, predictor, estimator, pipeline or path
        The model. A path is read, an estimator becomes a predictor.
    kind : str
        The kind of the output. It determines how the folder of a text model is opened.

    Raises
    ------
    ArgumentTypeError
        If it is nothing of that kind.
    CheckpointError, OSError
        If a file cannot be read.
    """
    if isinstance(model, str | os.PathLike):
        model = _read(Path(os.fsdecode(model)), kind)
    if hasattr(model, "to_predictor"):
        model = model.to_predictor()
    if not isinstance(model, (Layer, Predictor, *_TEXT_MODELS)):
        raise ArgumentTypeError(
            "argument 'model' must be a layer, a predictor, an estimator, a TextClassifier, a "
            f"TextEmbedder, or the path of one, got {describe(model)}"
        )
    return model


def _read(path: Path, kind: str) -> Any:
    """Return the model in a file or folder."""
    if path.is_dir():
        return (TextEmbedder if kind == "embed" else TextClassifier).from_pretrained(path)
    layer, predictor = load_model(path)
    return layer if predictor is None else predictor


def output_of(
    model: Any, kind: str, pooling: str | None = None, *, normalize: bool | None = None
) -> Output:
    """Return the output of a model that `open_model` returned.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If the model has no such output.
    """
    if pooling not in (None, *POOLINGS):
        raise ArgumentError(
            f"argument 'pooling' must be {' or '.join(POOLINGS)}, got {describe(pooling)}"
        )
    return Output(kind, tuple(_NAMES[kind](model)), pooling, normalize)


def _predicted_names(model: Any) -> Sequence[str]:
    if isinstance(model, TextEmbedder):
        raise _wrong(model, "predict")
    if isinstance(model, TextClassifier):
        return ["label" if model.labels else "prediction"]
    if isinstance(model, Layer):
        return [f"y{k}" for k in range(model.config.output_dim)]
    schema = model.schema
    if schema.task == "classification":
        return schema.target or ["prediction"]
    if schema.task == "multilabel":
        return list(map(str, schema.classes))
    outputs = model.layer.config.output_dim
    return schema.target or (["prediction"] if outputs == 1 else [f"y{k}" for k in range(outputs)])


def _class_names(model: Any) -> Sequence[str]:
    labels: Sequence[Any] = model.labels if isinstance(model, TextClassifier) else ()
    if isinstance(model, Predictor):
        labels = model.schema.classes
    if not labels:
        raise _wrong(model, "predict_proba")
    return list(map(str, labels))


def _route_names(model: Any) -> Sequence[str]:
    layer = model.layer if isinstance(model, Predictor) else model
    if not hasattr(layer, "route"):
        raise _wrong(model, "route")
    config: Any = layer.config
    if not hasattr(config, "trees"):
        return ["leaf"]
    levels = range(config.depth + 1)
    return [f"tree {tree} level {level}" for tree in range(config.trees) for level in levels]


def _vector_names(model: Any) -> Sequence[str]:
    if not isinstance(model, TextEmbedder):
        raise _wrong(model, "embed")
    return [f"e{k}" for k in range(model.model.config.width)]


_NAMES: MappingProxyType[str, Callable[[Any], Sequence[str]]] = MappingProxyType(
    {
        "predict": _predicted_names,
        "predict_proba": _class_names,
        "route": _route_names,
        "embed": _vector_names,
    }
)
"""The names of the columns by the kind of output."""

_NEEDS = MappingProxyType(
    {
        "predict": "have labels or numbers to predict",
        "predict_proba": "have classes",
        "route": "have trees",
        "embed": "be a TextEmbedder",
    }
)


def _wrong(model: Any, kind: str) -> ArgumentTypeError:
    return ArgumentTypeError(f"argument 'model' must {_NEEDS[kind]}, got {describe(model)}")
