"""Models mapped over collections of Dask: arrays, frames, series and bags, lazily.

Each partition of the input becomes one of the output::

    array      | 1000 rows | 1000 rows | 0 rows |      output(model, block)      an array
    frame      | 1000 rows | 1000 rows | 0 rows |      the same, index kept      series or frame
    bag        | 100 items | 100 items |  none  |      list(output(model, ..))   a bag
                     ^           ^
                     the model: one value of the graph, or one future of a cluster

What Dask must know beforehand, the dtype and the shape of a row, is what the model gives for no
rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dask
import dask.array
import dask.bag
import numpy as np
from dask.base import get_scheduler
from dask.utils import is_dataframe_like, is_series_like
from numpy.typing import NDArray

from fffcpu.dask.outputs import Output, open_model, output_of
from fffcpu.errors import ArgumentTypeError, ShapeError, describe
from fffcpu.inference.pipelines import TextClassifier, TextEmbedder

__all__ = ["embed", "predict", "predict_proba", "route"]

Array = NDArray[Any]


def predict(model: Any, x: Any) -> Any:
    """Return predictions; see `fffcpu.dask.predict`."""
    return _mapped(model, x, "predict")


def predict_proba(model: Any, x: Any) -> Any:
    """Return probabilities; see `fffcpu.dask.predict_proba`."""
    return _mapped(model, x, "predict_proba")


def route(model: Any, x: Any) -> Any:
    """Return nodes; see `fffcpu.dask.route`."""
    return _mapped(model, x, "route")


def embed(
    model: Any, texts: Any, pooling: str | None = None, *, normalize: bool | None = None
) -> Any:
    """Return vectors; see `fffcpu.dask.embed`."""
    return _mapped(model, texts, "embed", pooling, normalize)


def _mapped(
    model: Any, x: Any, kind: str, pooling: str | None = None, normalize: bool | None = None
) -> Any:
    """Return the collection of a model's outputs."""
    opened = open_model(model, kind)
    output = output_of(opened, kind, pooling, normalize=normalize)
    takes_texts = isinstance(opened, TextClassifier | TextEmbedder)
    if isinstance(x, dask.array.Array):
        return _map_array(output, opened, x, takes_texts)
    if isinstance(x, dask.bag.Bag):
        return x.map_partitions(_bag_partition, output, shared(opened))
    if dask.is_dask_collection(x) and (is_series_like(x) if takes_texts else is_dataframe_like(x)):
        partition = _series_partition if takes_texts else _frame_partition
        meta = partition(x._meta, output, opened)
        return x.map_partitions(partition, output, shared(opened), meta=meta)
    kinds = "an array, a series or a bag of texts" if takes_texts else "an array, a frame or a bag"
    raise ArgumentTypeError(f"argument 'x' must be {kinds} of Dask, got {describe(x)}")


def shared(model: Any) -> Any:
    """Return a value to put into graphs, in which the model lies once.

    Where a cluster computes by default, this is a future: the model goes to one worker, and from
    worker to worker as they need it.
    """
    client: Any = getattr(get_scheduler(), "__self__", None)
    if hasattr(client, "scatter"):
        # Without a hash: two models with the same numbers are rare, and hashing reads all of them.
        return client.scatter(model, hash=False)
    return dask.delayed(model, pure=False, traverse=False)


# --- Arrays --------------------------------------------------------------------------------------


def _map_array(output: Output, model: Any, x: Any, takes_texts: bool) -> Any:
    axes = 1 if takes_texts else 2
    if x.ndim != axes:
        shape = "(R,), a text per row" if takes_texts else "(R, C)"
        raise ShapeError(f"argument 'x' must be an array of shape {shape}, got shape {x.shape}")
    if axes == 2 and len(x.chunks[1]) > 1:
        raise ShapeError(
            "argument 'x' must have all columns of a row in one chunk, got chunks of "
            f"{x.chunks[1]} columns; x.rechunk({{1: -1}}) joins them"
        )
    none = _array_block(np.empty((0, *x.shape[1:]), x.dtype), output, model)
    return dask.array.map_blocks(
        _array_block,
        x,
        output,
        shared(model),
        dtype=none.dtype,
        meta=none,
        chunks=(x.chunks[0], *((length,) for length in none.shape[1:])),
        drop_axis=list(range(1, axes)),
        new_axis=list(range(1, none.ndim)),
    )


def _array_block(block: Array, output: Output, model: Any) -> Array:
    """Return the output for a chunk of an array."""
    return output(model, _texts(block) if block.ndim == 1 else block)


# --- Frames and series ---------------------------------------------------------------------------


def _frame_partition(frame: Any, output: Output, model: Any) -> Any:
    """Return the output for a partition of a frame."""
    return _framed(output(model, frame), output, frame)


def _series_partition(series: Any, output: Output, model: Any) -> Any:
    """Return the output for a partition of a series of texts."""
    return _framed(output(model, _texts(series)), output, series)


def _framed(values: Array, output: Output, source: Any) -> Any:
    """Return values as a series or a frame with the index of their source."""
    import pandas

    if values.ndim == 1:
        return pandas.Series(values, index=source.index, name=output.names[0])
    rows = values.reshape(len(values), len(output.names))
    return pandas.DataFrame(rows, index=source.index, columns=list(output.names))


# --- Bags ----------------------------------------------------------------------------------------


def _bag_partition(items: Iterable[Any], output: Output, model: Any) -> list[Any]:
    """Return the outputs for the items of a bag's partition, one by one."""
    rows = list(items)
    if not rows:
        return []
    if isinstance(model, TextClassifier | TextEmbedder):
        values = output(model, _texts(rows))
    else:
        values = output(model, _columns(rows) if isinstance(rows[0], Mapping) else np.array(rows))
    return values.tolist() if values.ndim == 1 else list(values)


def _columns(rows: list[Mapping[Any, Any]]) -> dict[Any, list[Any]]:
    """Return rows as columns by name; what a row lacks is missing."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _texts(values: Iterable[Any]) -> list[str]:
    """Return texts as Python's own, and raise if there is anything else."""
    texts = [value.item() if isinstance(value, np.generic) else value for value in values]
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ArgumentTypeError(
                f"argument 'x' must hold texts, got {describe(text)} at place {place} of a "
                "partition"
            )
    return texts
