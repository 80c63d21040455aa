"""The published numbers that the suite ships: all there, small, and cut from the whole files."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.testing import golden, oracle
from tests.support.paths import GOLDEN


@pytest.mark.parametrize(("kind", "count"), [("path_fff", 6), ("bmm_fff", 2), ("leaf_fff", 4)])
def test_files_are_there(kind, count):
    assert len(golden.files(kind)) == count


def test_files_are_small():
    """They are in every wheel."""
    assert sum(path.stat().st_size for path in golden.FOLDER.glob("*.npz")) < 1 << 20


def test_the_deep_tree_is_the_published_one_at_visited_nodes():
    """Weights of other nodes are 0; their gradients are 0 in the published file already."""
    name = "path_fff_w64_d11_t1"
    whole, cut = np.load(GOLDEN / f"{name}.npz"), np.load(golden.FOLDER / f"{name}_visited.npz")
    assert whole.files == cut.files
    weights_in = whole["linear_in_weight"][np.newaxis]
    bias_in, weights_out = whole["linear_in_bias"][np.newaxis], whole["linear_out_weight"].T
    nodes = oracle.path(whole["x"], weights_in, bias_in, weights_out[np.newaxis]).nodes
    visited = np.zeros(weights_in.shape[1], bool)
    visited[nodes] = True
    kept = {
        "linear_in_weight": visited[:, np.newaxis],
        "linear_in_bias": visited,
        "linear_out_weight": visited,
    }
    for key in whole.files:
        np.testing.assert_array_equal(cut[key], whole[key] * kept.get(key, 1), err_msg=key)
