"""The memory of a training is foreseen: about what it takes, never more, and before it is taken."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward
from fffcpu.cli import main
from fffcpu.data import Table
from fffcpu.errors import NotEnoughMemoryError
from fffcpu.layers import Attention
from fffcpu.models import FastBertConfig, FastBertForMaskedLM
from fffcpu.recipes import memory as foreseen
from fffcpu.recipes.fitting import FitSettings, fit
from fffcpu.recipes.pretraining import PretrainSettings
from fffcpu.sklearn import FFFClassifier
from fffcpu.system import memory
from fffcpu.system.memory import Available
from fffcpu.training import AdamW

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
TABLE = Table(x=X, y=Y, classes=(0, 1), features=None, target=None, path=None)

FITS = {
    "rows": {"depth": 14},
    "one-sided": {"depth": 14, "two_sided": False},
    "dense gradients": {"depth": 14, "gradients": "dense"},
    "best": {"depth": 14, "patience": 3},
    "sgd": {"depth": 14, "optimizer": "sgd"},
    "momentum": {"depth": 14, "optimizer": "sgd", "momentum": 0.9, "gradients": "dense"},
    "local": {"depth": 14, "optimizer": "local-adam"},
    "leaf": {"layer": "leaf", "depth": 11},
    "dense": {"layer": "dense", "width": 50_000},
}

ESTIMATORS = {
    "whole batch": {"depth": 13},
    "batches": {"depth": 13, "batch_size": 8},
    "leaf": {"layer": "leaf", "depth": 11},
}


def fit_table(options):
    fit(TABLE, FitSettings(epochs=2, batch_size=8, **options), progress=False)


def fit_estimator(options):
    FFFClassifier(max_iter=2, **options).fit(X, Y)


def foresight_and_peak(run, options, monkeypatch):
    """Bytes that were foreseen, and that were allocated at the same time."""
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(
            foreseen, "check_fits", lambda config, need, doing: asked.append(need(config))
        )
        run(options)  # imports, and compiles
        tracemalloc.start()
        try:
            run(options)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert asked[0] == asked[1]
    return asked[1], peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "options"),
    [
        *((fit_table, options) for options in FITS.values()),
        *((fit_estimator, options) for options in ESTIMATORS.values()),
    ],
    ids=[*FITS, *(f"estimator, {name}" for name in ESTIMATORS)],
)
def test_foreseen_is_nearly_what_a_training_takes_and_never_more(run, options, monkeypatch):
    bytes_foreseen, peak = foresight_and_peak(run, options, monkeypatch)
    assert 0.75 * peak <= bytes_foreseen <= peak


@pytest.fixture
def little(monkeypatch):
    """Let 256 MiB be available."""
    monkeypatch.setattr(memory, "available_memory", lambda: Available(1 << 28, "there is only"))


@pytest.fixture
def without_random_numbers(monkeypatch):
    """Fail where initial values would be drawn: the error has to come before."""
    for module in ("fast_feed_forward", "leaf_feed_forward", "dense_feed_forward"):
        monkeypatch.setattr(f"fffcpu.layers.{module}.uniform", None)


MODEL = FastBertConfig(1000, 64, 2, 4, feedforward_size=1, depth=22, positions=8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FFFClassifier(depth=25).fit(X, Y),
        lambda: FFFClassifier(depth=25, early_stopping=True, batch_size=4).fit(X, Y),
        lambda: FFFClassifier(layer="leaf", depth=20).fit(X, Y),
        lambda: fit(TABLE, FitSettings(depth=25)),
        lambda: fit(TABLE, FitSettings(layer="leaf", depth=25)),
        lambda: FastFeedForward(4, 2, 25),
        lambda: LeafFeedForward(4, 2, 25, 8),
        lambda: FastBertForMaskedLM(MODEL),
        lambda: PretrainSettings(depth=25).check_memory(1000),
    ],
)
@pytest.mark.usefixtures("little", "without_random_numbers")
def test_a_tree_that_is_too_deep_is_an_error_before_anything_is_made(make):
    with pytest.raises(NotEnoughMemoryError, match="there is only 268 MB; the deepest tree that"):
        make()


@pytest.mark.usefixtures("little", "without_random_numbers")
def test_a_dense_layer_that_is_too_wide_is_an_error_as_well():
    with pytest.raises(NotEnoughMemoryError, match="the largest width that fits is"):
        DenseFeedForward(4, 2, 1 << 30)
    with pytest.raises(NotEnoughMemoryError, match="the largest width that fits is"):
        fit(TABLE, FitSettings(layer="dense", width=1 << 30))


def test_copies_moments_and_files_are_foreseen(monkeypatch, tmp_path):
    layer = FastFeedForward(64, 64, 16, rng=0)  # 68 MB
    layer.save(tmp_path / "layer")
    monkeypatch.setattr(memory, "available_memory", lambda: Available(1 << 26, "there is only"))
    with pytest.raises(NotEnoughMemoryError, match="a copy of a FastFeedForward of depth 16"):
        layer.copy()
    with pytest.raises(NotEnoughMemoryError, match="reading a FastFeedForward of depth 16"):
        FastFeedForward.load(tmp_path / "layer")
    with pytest.raises(NotEnoughMemoryError, match="AdamW, which keeps 2 numbers for each"):
        AdamW(layer.params, 0.1)
    with pytest.raises(NotEnoughMemoryError, match=r"an array of shape \(1000000, 64\)"):
        layer(np.broadcast_to(np.zeros(64, np.float32), (1_000_000, 64)))


@pytest.mark.usefixtures("little")
def test_what_a_step_keeps_is_foreseen():
    leaf = LeafFeedForward(4, 2, 12, 16, rng=0)
    with pytest.raises(NotEnoughMemoryError, match="the largest batch that fits has 341 rows"):
        leaf.forward(np.zeros((1000, 4), np.float32))
    leaf.forward(np.zeros((2, 4), np.float32))
    attention = Attention(4, 2, rng=0)
    with pytest.raises(NotEnoughMemoryError, match="attention of 1 sequences of 10000 positions"):
        attention.forward(np.zeros((1, 10_000, 4), np.float32))
    config = FastBertConfig(50, 8, 2, 2, feedforward_size=1, depth=1, positions=5000)
    model = FastBertForMaskedLM(config, rng=0)
    ids = np.zeros((4, 5000), np.int64)
    with pytest.raises(NotEnoughMemoryError, match="a training step on 4 sequences of 5000 tok"):
        model.encoder.forward(ids)


@pytest.mark.usefixtures("little")
def test_the_commands_say_it_in_one_line(tmp_path, capsys):
    lines = ["a,b,label", *(f"{row[0]},{row[1]},{label}" for row, label in zip(X, Y, strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    out = str(tmp_path / "m")
    command = ["train", str(tmp_path / "t.csv"), "--target", "label", "--out", out]
    assert main([*command, "--depth", "28"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "fffcpu: error: not enough memory: training a FastFeedForward of depth 28, trees 4 needs "
    )
    assert "the deepest tree that fits has depth" in error
    assert main([*command, "--depth", "62"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "'depth' must be an integer from 0 to 29, got 62" in error
    (tmp_path / "text.txt").write_text("some words\n" * 100)
    assert main(["pretrain", str(tmp_path / "text.txt"), "--out", out, "--depth", "28"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not enough memory: training a FastBert of depth 28" in error
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("m")] == []
