"""A table written to a file and read again."""

from __future__ import annotations

import csv
import io

import pytest

from fffcpu.data import read_table


@pytest.fixture
def read(tmp_path):
    """Write a CSV file of columns, and read it with an encoding that is found out."""

    def table(columns, target=None, *, name="a.csv", separator=",", **options):
        text = io.StringIO()
        writer = csv.writer(text, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        path = tmp_path / name
        path.write_text(text.getvalue(), encoding="utf-8")
        return read_table(path, target, encoding="auto", separator=separator, **options)

    return table
