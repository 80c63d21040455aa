"""What the sets contain."""

from __future__ import annotations

import numpy as np

from benchmarks.crossover import sets


def test_few_rows_are_of_the_most_frequent_classes(monkeypatch):
    monkeypatch.setattr(sets, "QUICK_ROWS", 12)
    y = np.repeat([0, 1, 2, 3, 4], [1, 9, 2, 30, 8])
    x = np.arange(len(y), dtype=float)[:, np.newaxis]
    few = sets.a_few(sets.Rows(x, y, x[::-1], y[::-1]))
    np.testing.assert_array_equal(few.x[:, 0], [*range(1, 10), 12, 13, 14])
    np.testing.assert_array_equal(few.y, [0] * 9 + [1] * 3)  # classes 1 and 3
    np.testing.assert_array_equal(few.test_y, [2] * 8 + [1] * 4)
    np.testing.assert_array_equal(y[few.test_x[:, 0].astype(int)], [4] * 8 + [3] * 4)
