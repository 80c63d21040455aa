"""Training on a cluster: the recipes of one process, with a crew that computes their shards."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import dask
import dask.array
import distributed
import numpy as np
from dask.utils import is_dataframe_like
from numpy.typing import NDArray

from fffcpu.columns.frames import frame_array, frame_columns, is_frame
from fffcpu.dask.crew import Crew
from fffcpu.data import Table
from fffcpu.data.labels import array_targets
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe
from fffcpu.recipes import fitting, pretraining
from fffcpu.text import Corpus
from fffcpu.training.trainer import Callback

__all__ = ["fit", "pretrain"]

Array = NDArray[Any]


def fit(
    client: Any,
    x: Any,
    y: Any,
    settings: fitting.FitSettings,
    *,
    task: str | None,
    folder: str | os.PathLike[str] | None,
    resume: bool,
    progress: bool | None,
    callbacks: Sequence[Callback],
) -> fitting.Fitted:
    """Train a layer on a table; see `fffcpu.dask.fit`."""
    check_client(client)
    with client.as_current():
        table = _table(client, x, y, task)
        return fitting.fit(
            table,
            settings,
            folder=folder,
            resume=resume,
            progress=progress,
            callbacks=callbacks,
            spread=functools.partial(Crew, client),
        )


def pretrain(
    client: Any,
    corpus: Corpus,
    settings: pretraining.PretrainSettings,
    *,
    folder: str | os.PathLike[str] | None,
    resume: bool,
    progress: bool | None,
    callbacks: Sequence[Callback],
) -> pretraining.Pretrained:
    """Train a masked language model on a corpus; see `fffcpu.dask.pretrain`."""
    check_client(client)
    with client.as_current():
        return pretraining.pretrain(
            corpus,
            settings,
            folder=folder,
            resume=resume,
            progress=progress,
            callbacks=callbacks,
            spread=functools.partial(Crew, client),
        )


def check_client(client: Any) -> None:
    """Raise unless an argument is a client that waits for results.

    Raises
    ------
    ArgumentTypeError
        If it is something else.
    """
    if not isinstance(client, distributed.Client) or client.asynchronous:
        raise ArgumentTypeError(
            "argument 'client' must be a distributed.Client that is not asynchronous, "
            f"got {describe(client)}"
        )


def _table(client: Any, x: Any, y: Any, task: str | None) -> Table:
    """Return rows and targets as a table, whose rows may be an array of Dask."""
    if isinstance(x, Table):
        if y is not None or task is not None:
            raise ArgumentError(
                "arguments 'y' and 'task' must be None where 'x' is a table, which has both, "
                f"got {describe(y)} and {describe(task)}"
            )
        return x
    rows, features = _rows(x)
    labels, names = _labels(client, y)
    targets = array_targets(labels, rows.shape[0], "argument 'y'", task, None, "float64")
    return Table(rows, targets.y, features=features, target=names or None, classes=targets.classes)


def _rows(x: Any) -> tuple[Any, tuple[str, ...] | None]:
    """Return rows as an array, of NumPy or of Dask, and the names of its columns."""
    features = None
    if is_frame(x):
        features = tuple(map(str, frame_columns(x)))
        x = _frame_rows(x) if dask.is_dask_collection(x) else frame_array(x)
    elif not isinstance(x, dask.array.Array):
        x = np.asarray(x)
    if x.ndim != 2:
        raise ShapeError(f"argument 'x' must be rows of shape (R, C), got shape {x.shape}")
    if x.dtype.kind not in "fiub":
        raise ArgumentTypeError(f"argument 'x' must hold real numbers, got dtype {x.dtype}")
    if np.isnan(x.shape[0]):
        x.compute_chunk_sizes()
    return x, features


def _frame_rows(frame: Any) -> Any:
    """Return a frame of Dask as an array of Dask."""
    for name, dtype in frame.dtypes.items():
        if getattr(dtype, "kind", "O") not in "fiub":
            raise ArgumentTypeError(
                f"argument 'x' must hold columns of numbers, got column {name!r} of dtype {dtype}"
            )
    return frame.to_dask_array(lengths=True)


def _labels(client: Any, y: Any) -> tuple[Array, tuple[str, ...]]:
    """Return targets as an array of numbers or texts, and their names."""
    if dask.is_dask_collection(y):
        y = client.compute(y).result()
    names: tuple[str, ...] = ()
    if is_dataframe_like(y):
        names = tuple(map(str, y.columns))
    elif getattr(y, "name", None) is not None:
        names = (str(y.name),)
    labels = np.asarray(y)
    if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    return labels, names
