"""Layers that are compared: which one is recommended."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest

from fffcpu.cli.support import candidates
from fffcpu.training.batches import split_rows


@pytest.mark.slow
def test_layers_are_compared_by_loss_where_r2_is_not_defined(command, tmp_path):
    # The targets of all rows held out are equal.
    x = np.arange(300)
    held_out = split_rows(300, 0.1, 0)[1]
    y = np.where(np.isin(x, held_out), 0.5, np.sin(x))
    path, out = tmp_path / "a.csv", tmp_path / "m"
    pandas.DataFrame({"x": x, "y": y}).to_csv(path, index=False)
    options = ["--target", "y", "--out", out, "--layer", "auto", "--epochs", "1", "--json"]
    status, printed, told = command("train", path, *options)
    assert status == 0, told
    assert json.loads(printed)["validation"]["r2"] is None
    head = next(line for line in told.splitlines() if line.startswith("layer"))
    assert head.split()[1] == "loss"


def test_a_layer_without_a_defined_quality_is_not_recommended():
    def candidate(quality, loss, batch):
        return candidates.Candidate("", None, quality, loss, 1.0, batch)

    good, fast = candidate(0.9, 1.0, 2.0), candidate(np.nan, np.nan, 1.0)
    assert candidates.recommend([fast, good]) is good
    better, close, worse = (
        candidate(np.nan, loss, batch) for loss, batch in ((1.0, 3.0), (1.004, 2.0), (1.1, 1.0))
    )
    assert candidates.recommend([better, close, worse]) is close
    assert candidates.recommend([fast, fast]) is fast
