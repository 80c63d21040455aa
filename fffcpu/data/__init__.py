"""Tables of data, read from files: rows of numbers, and a target for each row.

`read_table` and `read_blocks` read CSV, .npy, .npz and IDX files. `load_digits` returns a small
table from the package, without a download.
"""

from __future__ import annotations

from fffcpu.columns.encoding import Column, Encoding
from fffcpu.data.digits import load_digits
from fffcpu.data.reading import count_rows, read_blocks, read_table
from fffcpu.data.table import Table, check_finite

__all__ = [
    "Column",
    "Encoding",
    "Table",
    "check_finite",
    "count_rows",
    "load_digits",
    "read_blocks",
    "read_table",
]
