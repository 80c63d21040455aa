"""Predictions and trainings beyond one process, by Dask (extra ``dask``).

`predict`, `predict_proba`, `route` and `embed` map a model over a collection of Dask, lazily. `fit`
and `pretrain` train on the workers of a cluster, to the bits of a training in one process.

::

    collections   arrays, frames, series and bags: a model mapped over their partitions
    outputs       what a model gives for the rows of a partition, and the names of its columns
    streaming     blocks of rows that this process reads, computed in their order
    training      fit and pretrain
    crew          the workers of a training: who holds which shard, and what if one is lost
    worker        the end of the crew that lies in a worker
    losses        the errors that mean a lost worker
    wire          arrays in messages: whole, or only the rows that changed
    cluster       a scheduler by its address, or a cluster on this machine
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from fffcpu.dask.cluster import connect
from fffcpu.errors import require_extra
from fffcpu.recipes.fitting import FitSettings, Fitted
from fffcpu.recipes.pretraining import Pretrained, PretrainSettings
from fffcpu.text import Corpus
from fffcpu.training.trainer import Callback

__all__ = ["connect", "embed", "fit", "predict", "predict_proba", "pretrain", "route"]


def predict(model: str | os.PathLike[str] | Any, x: Any) -> Any:
    """Return the predictions for the rows of a collection, lazily.

    Parameters
    ----------
    model : predictor, estimator, layer, TextClassifier or path
        What predicts, or the path of its file or folder, which is read here. It is sent to the
        cluster once; without a cluster it becomes one value of the graph.
    x : dask array, DataFrame, Series or Bag
        Rows: an array of shape (R, C), a frame with the model's columns, or a bag of rows, each a
        sequence of numbers or a mapping of names to values. For a TextClassifier texts: an array
        (R,), a series or a bag.

    Returns
    -------
    dask array, Series, DataFrame or Bag
        What ``model.predict`` returns for these rows, or ``model(x)`` of a layer: an array for an
        array, a series or a frame for a frame or series, with its index, a bag for a bag. A
        partition without rows gives one without rows.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If the model cannot predict, x is no collection, or an array is cut along its columns.
    MissingExtraError
        If Dask is not installed.

    Notes
    -----
    A task uses one core, as Dask expects. The bits of a row do not depend on its partition, except
    of dense layers and texts, whose matrix products round by the batch.
    """
    return _collections().predict(model, x)


def predict_proba(model: str | os.PathLike[str] | Any, x: Any) -> Any:
    """Return the probabilities of each class for the rows of a collection, lazily.

    Parameters
    ----------
    model : predictor, classifier of scikit-learn's kind, TextClassifier or path
        As for `predict`.
    x : dask array, DataFrame, Series or Bag
        As for `predict`.

    Returns
    -------
    dask array (R, O), DataFrame or Bag
        Of the same kind as x. The columns of a frame are named after the classes.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError, MissingExtraError
        As for `predict`; also if the model has no classes.
    """
    return _collections().predict_proba(model, x)


def route(model: str | os.PathLike[str] | Any, x: Any) -> Any:
    """Return the nodes or leaves that the rows of a collection visit, lazily.

    Parameters
    ----------
    model : layer with trees, predictor or estimator of one, or path
        As for `predict`.
    x : dask array, DataFrame or Bag
        As for `predict`.

    Returns
    -------
    dask array, Series, DataFrame or Bag
        What ``layer.route`` returns: int32 of shape (R, T, L) for a FastFeedForward, (R,) for a
        LeafFeedForward. A frame has a column for each tree and level.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError, MissingExtraError
        As for `predict`; also if the layer has no trees.
    """
    return _collections().route(model, x)


def embed(
    model: str | os.PathLike[str] | Any,
    texts: Any,
    pooling: str | None = None,
    *,
    normalize: bool | None = None,
) -> Any:
    """Return a vector of each text of a collection, lazily.

    Parameters
    ----------
    model : TextEmbedder or path
        The encoder and its tokenizer, or the path of their folder.
    texts : dask Series, array of shape (R,) or Bag
        The texts, such as a column of a frame.
    pooling, normalize
        As for `fffcpu.pipelines.TextEmbedder.embed`.

    Returns
    -------
    dask DataFrame, array (R, D) or Bag
        Of the same kind as the texts: a frame with D columns for a series.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError, MissingExtraError
        As for `predict`; also if an option has an unknown value.
    """
    return _collections().embed(model, texts, pooling, normalize=normalize)


def fit(
    client: Any,
    x: Any,
    y: Any,
    settings: FitSettings,
    *,
    task: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> Fitted:
    """Train a layer on a table, on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
        A client of the cluster.
    x : dask array or DataFrame, array_like of shape (R, C), data frame, or Table
        Rows of finite numbers. The names of a frame's columns become those of the features. Rows
        in Dask are cut into ``settings.shards`` blocks, which stay in the cluster; others are
        sent.
    y : dask array, Series or DataFrame, or array_like
        Targets: a label per row, or numbers. They are gathered in this process. None for a
        `fffcpu.data.Table`, which has its own.
    settings : FitSettings
        The settings. ``shards`` is the largest number of cores that work at a time.
    task : {"classification", "regression"}, optional
        By default text, truth values and few different whole numbers are classes.
    folder, resume, progress, callbacks
        As for `fffcpu.recipes.fitting.fit`.

    Returns
    -------
    Fitted
        The predictor and the outcome of the run.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError, DataError
        As for `fffcpu.recipes.fitting.fit`; also if the arguments are no such things.
    CheckpointError, Interrupted
        As for `fffcpu.recipes.fitting.fit`.
    ClusterError
        If no worker is left, or one has another version of fffcpu.
    MissingExtraError
        If Dask is not installed.

    Notes
    -----
    The bits of the result are those of `fffcpu.recipes.fitting.fit` with the same settings, on
    machines of the same kind: they depend neither on the number of workers nor on which of them
    are lost. A run that was begun on a cluster can be resumed in one process, and the reverse.

    With one shard, the matrix products of dense and leaf layers may round differently, because one
    process computes them with all threads.
    """
    require_extra("distributed", "dask")
    from fffcpu.dask import training

    return training.fit(
        client,
        x,
        y,
        settings,
        task=task,
        folder=folder,
        resume=resume,
        progress=progress,
        callbacks=callbacks,
    )


def pretrain(
    client: Any,
    corpus: Corpus,
    settings: PretrainSettings,
    *,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> Pretrained:
    """Train a masked language model on a corpus, on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
        A client of the cluster.
    corpus : Corpus
        The text, which this process reads. Each worker gets the sequences of its shards.
    settings : PretrainSettings
        The settings. ``shards`` is the largest number of cores that work at a time.
    folder, resume, progress, callbacks
        As for `fffcpu.recipes.pretraining.pretrain`.

    Returns
    -------
    Pretrained
        The model and the outcome of the run.

    Raises
    ------
    ArgumentError, ArgumentTypeError, DataError, CheckpointError, Interrupted
        As for `fffcpu.recipes.pretraining.pretrain`.
    ClusterError, MissingExtraError
        As for `fit`.

    Notes
    -----
    The bits of the result are those of `fffcpu.recipes.pretraining.pretrain` with the same
    settings, from two shards on; see `fit`.
    """
    require_extra("distributed", "dask")
    from fffcpu.dask import training

    return training.pretrain(
        client,
        corpus,
        settings,
        folder=folder,
        resume=resume,
        progress=progress,
        callbacks=callbacks,
    )


def _collections() -> Any:
    """Return the module that maps models over collections, or raise if Dask is missing."""
    require_extra("dask", "dask")
    from fffcpu.dask import collections

    return collections
