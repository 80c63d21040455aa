"""A table: rows of numbers, and a target for each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.columns.encoding import Encoding
from fffcpu.columns.fields import Classes
from fffcpu.data.files import locate
from fffcpu.errors import DataError

__all__ = ["Table", "check_finite"]

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Rows of numbers, and the targets of the rows.

    Parameters
    ----------
    x : array of shape (rows, features)
        Real numbers, in the dtype and byte order of the file. With an encoding, columns of
        categories hold their numbers, and missing values are NaN.
    y : array, optional
        For classification, int64 class numbers of shape (rows,); for regression, floats of shape
        (rows, outputs).
    features : tuple of str, optional
        Names of the columns of ``x``.
    target : tuple of str, optional
        Names of the columns of ``y``.
    classes : tuple of str, int, float or bool, optional
        For classification: the label of each class number.
    encoding : Encoding, optional
        How the columns become a layer's inputs, where not every column is plain numbers.
    left_out : dict of str to str
        Names of the columns of the file that were not taken as features, and why.
    notices : dict of str to str
        Names of the columns of texts that look like numbers or dates in another form, and their
        form.
    image_shape : tuple of int, optional
        Shape of a row, if the file's array has more than two axes.
    path : str, optional
        The file of ``x``, for errors.
    """

    x: Array
    y: Array | None = None
    _: dataclasses.KW_ONLY
    features: tuple[str, ...] | None = None
    target: tuple[str, ...] | None = None
    classes: Classes | None = None
    encoding: Encoding | None = None
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    notices: dict[str, str] = dataclasses.field(default_factory=dict)
    image_shape: tuple[int, ...] | None = None
    path: str | None = None

    @property
    def inputs(self) -> int:
        """Number of inputs of a layer for this table."""
        return int(self.x.shape[1]) if self.encoding is None else self.encoding.width

    def __repr__(self) -> str:
        if self.y is None:
            targets = "no target"
        elif self.classes is not None:
            targets = f"{len(self.classes):,} classes"
        else:
            targets = f"{self.y.shape[1]:,} numbers to predict"
        return f"<Table: {len(self.x):,} rows, {self.x.shape[1]:,} features, {targets}>"


def check_finite(block: Array, rows: Sequence[int] | NDArray[Any], path: str | None = None) -> None:
    """Raise unless all numbers of some rows of a table are finite.

    Parameters
    ----------
    block : array of shape (R, features)
        The rows.
    rows : sequence of int, length R
        Their numbers in the table, such as ``range(first, first + R)``.
    path : str, optional
        The file of the rows, for errors.

    Raises
    ------
    DataError
        If a number is NaN or infinite; the message names its row and column.
    """
    if block.dtype.kind != "f":
        return
    finite = np.isfinite(block)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        place = f"row {rows[row]}, column {column} (counted from 0)"
        place = place if path is None else locate(path, place)
        raise DataError(f"{place}: must be a finite number, got {block[row, column]}")
