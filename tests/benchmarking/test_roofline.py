"""The work of a call, counted by hand, and the roofline; no test asserts how fast anything is."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward
from fffcpu.benchmarking import roofline
from fffcpu.benchmarking.roofline import (
    Roofline,
    Visits,
    dense_work,
    leaf_work,
    path_work,
    roofline_contenders,
    visited_nodes,
    visits,
)
from fffcpu.benchmarking.timing import Timing, Work, alternate


def test_work_of_a_path():
    config = FastFeedForward(10, 6, depth=2, trees=3, rng=0).config
    # 5 rows, 3 trees, 3 levels: a product of 10 and one of 6 each, and each twice an operation.
    flops = 5 * 3 * 3 * (10 + 6) * 2
    # 7 rows of input weights and 9 of output weights, and x and y: 4 bytes a number.
    visited = Visits(nodes=7, sides=9)
    weights = 7 * 10 + 9 * 6
    assert path_work(config, 5, visited) == Work(flops, (weights + 5 * 16) * 4)
    assert path_work(config, 5, visited, item_bytes=1) == Work(flops, weights + 5 * 16 * 4)


def test_work_of_a_dense_layer():
    config = DenseFeedForward(10, 6, 9, dtype=np.float64, rng=0).config
    assert dense_work(config, 5) == Work(5 * 9 * 16 * 2, (9 * 16 + 5 * 16) * 8)


def test_work_of_a_leaf_layer():
    config = LeafFeedForward(10, 6, depth=2, leaf_width=4, rng=0).config
    # Two gates of 10, and 4 neurons of 10 and 6; all 3 gates and all 4 leaves are read.
    expected = Work(5 * 2 * (2 * 10 + 4 * 16), 4 * (5 * 16 + 3 * 10 + 4 * 4 * 16))
    assert leaf_work(config, rows=5, leaves=4) == expected


def test_visited_nodes_are_counted_once_in_each_tree():
    routes = [[[0, 1], [0, 2]], [[0, 2], [0, 2]], [[0, 1], [0, 2]]]  # (B, T, L)
    assert visited_nodes(np.array(routes, np.int32)) == 3 + 2


@pytest.mark.parametrize("kind", [None, "int8"])
def test_a_side_is_visited_where_a_row_takes_it(kind):
    layer = FastFeedForward(1, 1, depth=1, bias=False, two_sided=True)
    layer.params["weights_in"][...] = 1.0
    two = layer if kind is None else layer.quantize(kind)
    # Positive rows go right at both of their nodes; the others go left.
    assert visits(two, np.ones((3, 1), np.float32)) == Visits(2, 2)
    assert visits(two, np.array([[1], [-1]], np.float32)) == Visits(3, 4)
    one = FastFeedForward(1, 1, depth=1, rng=0)
    one.params["weights_in"][...] = 1.0
    assert visits(one, np.array([[1], [-1]], np.float32)) == Visits(3, 3)


def machine() -> Roofline:
    """A machine of 8 bytes and 100 operations per second, twice as fast in the second round."""
    return Roofline(
        copy=Timing("copy", 1, 1, (2.0, 1.0, 2.0), Work(0, 16)),
        gemm=Timing("gemm", 1, 1, (1.0, 0.5, 1.0), Work(100, 1)),
    )


@pytest.mark.parametrize(
    ("work", "best"),
    [(Work(50, 1), (0.5, 0.25, 0.5)), (Work(50, 8), (1.0, 0.5, 1.0))],
    ids=["products", "bytes"],
)
def test_the_roofline_is_the_larger_of_products_and_bytes(work, best):
    timing = Timing("A", 2, 1, (2.0, 2.0, 4.0), work)
    assert machine().microseconds(timing) == pytest.approx(np.median(best) / 2 * 1e6)
    expected = np.median(np.array(best) / timing.seconds)
    assert machine().fraction(timing) == pytest.approx(expected)


def test_no_roofline_where_the_work_is_unknown():
    timing = Timing("A", 2, 1, (2.0, 2.0, 4.0))
    assert machine().microseconds(timing) is None
    assert machine().fraction(timing) is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 3])
def test_contenders_do_what_they_say(dtype, threads, monkeypatch):
    monkeypatch.setattr(roofline, "COPY_BYTES", 1000)
    monkeypatch.setattr(roofline, "GEMM_WIDTH", 10)
    made = []
    filled = np.empty_like
    monkeypatch.setattr(
        roofline.np, "empty_like", lambda array: made.append(filled(array)) or made[-1]
    )
    contenders = roofline_contenders(threads, dtype)
    timings = alternate(contenders, 2, min_time=0, rest=0)
    assert Roofline.of(timings[::-1]) == Roofline(*timings)
    assert [contender.work.bytes for contender in contenders] == [2000, made[1].nbytes * 3]
    assert [contender.work.flops for contender in contenders] == [0, 2000]
    copied, product = made
    np.testing.assert_array_equal(copied, np.ones(1000))
    assert product.dtype == dtype
    np.testing.assert_array_equal(product, np.full((10, 10), 10))
