"""Blocks and layouts do not show in the results."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.training import AdamW
from fffcpu.training.optimizers import blocks
from tests.support.optimizers import (
    LAYOUTS,
    assert_same,
    copies,
    each_optimizer,
    random_arrays,
    row_sparse_run,
    train,
    twins,
)


@each_optimizer
@pytest.mark.parametrize("block", [1, 5, 24])
def test_blocks_do_not_show(make, block, monkeypatch):
    ref, comp = (random_arrays(np.random.default_rng(2), np.float32) for _ in range(2))
    train(make(ref), np.random.default_rng(3), 3, np.float32)
    monkeypatch.setattr(blocks, "BLOCK", block)
    train(make(comp), np.random.default_rng(3), 3, np.float32)
    assert_same(comp, ref)


@each_optimizer
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("of", ["params", "grads"])
def test_layouts_do_not_show(make, layout, of, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 7)
    rng = np.random.default_rng(4)
    ref = {"weights": rng.normal(size=(4, 5, 3))}
    comp = copies(ref)
    if of == "params":
        comp = {name: layout(array) for name, array in comp.items()}
    first, second = make(ref), make(comp)
    for _ in range(3):
        grad = rng.normal(size=(4, 5, 3))
        first.step({"weights": grad})
        second.step({"weights": layout(grad) if of == "grads" else grad})
    assert_same(comp, ref)


@pytest.mark.parametrize("block", [1, 7, 32768])
def test_row_sparse_results_do_not_depend_on_the_blocks(block, monkeypatch):
    expected, found = [], []
    for results, size in ((expected, 32768), (found, block)):
        monkeypatch.setattr(blocks, "BLOCK", size)
        (params, _), (optimizer, _) = twins(lambda p: AdamW(p, 0.1, weight_decay=0.2))
        for rows, _ in row_sparse_run(3, 9):
            optimizer.step({"weights": rows})
        optimizer.bring_up_to_date()
        results.append(params["weights"].tobytes())
    assert expected == found
