"""Warming up: everything a server calls is compiled, through the calls that it makes itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numba
import numpy as np
import pytest

import fffcpu
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward, kernels
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.inference import warmup as startup
from fffcpu.kernels import jit
from fffcpu.models import (
    BertConfig,
    BertEncoder,
    BertForMaskedLM,
    BertForSequenceClassification,
    FastBertEncoder,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from fffcpu.system.pool import POOL
from tests.support.processes import PACKAGE, run

INFERENCE = {"_path_infer", "_path_logits", "_leaf_infer", "_leaf_route"}
INFERENCE |= {"_paths", "_gates", "_leaves"}  # of the grouped kernels
INFERENCE |= {"_layer_norm", "_attention", "_matmul", "_matmul_few"}  # of an encoder's rows
TRAINING = {"_path_forward", "_path_choices", "_path_deltas", "_path_gradients"}
TRAINING |= {"_layer_norm_backward", "_attention_backward", "_cross_entropy", "_add_rows"}


def on_caller_and_pool(kernels):
    return {(kernel, parallel) for kernel in kernels for parallel in (False, True)}


@pytest.fixture
def threads(monkeypatch):
    """Set how many threads kernels may use."""
    return lambda number: monkeypatch.setattr(POOL, "threads", number)


# --- What is warmed -------------------------------------------------------------------------------


@pytest.mark.slow
def test_kernels_of_int8_models_are_warmed(threads):
    threads(1)
    model = BertEncoder(BertConfig(30, 16, 2, 2, feedforward_size=24, positions=8), rng=0)
    warmed = {one.kernel for one in fffcpu.warmup(model.quantize("int8"))}
    assert warmed == {"_layer_norm", "_add_layer_norm", "_attention", "_project", "_feed_forward"}


@pytest.mark.slow
def test_both_ways_of_an_int8_feedforward_are_warmed(threads):
    threads(1)
    layer = DenseFeedForward(16, 16, 24, rng=0).quantize("int8")
    assert {one.kernel for one in fffcpu.warmup(layer)} == {"_project", "_feed_forward"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("training", "kernels"), [(False, INFERENCE), (True, INFERENCE | TRAINING)]
)
def test_standard_kernels_are_warmed(threads, dtype, training, kernels):
    threads(1)
    warmed = fffcpu.warmup(dtype=dtype, training=training)
    assert {one.kernel for one in warmed} == kernels
    assert {one.dtype for one in warmed} == {dtype}
    assert all(one.seconds > 0 for one in warmed)
    again = fffcpu.warmup(dtype=dtype, training=training)
    assert {one.source for one in again} == {"memory"}


@pytest.mark.slow
def test_kernels_are_warmed_on_the_pool_too_where_there_are_several_threads(threads):
    threads(numba.config.NUMBA_NUM_THREADS)
    expected = on_caller_and_pool(INFERENCE | TRAINING)
    if POOL.threads == 1:
        expected = {(kernel, parallel) for kernel, parallel in expected if not parallel}
    assert {(one.kernel, one.parallel) for one in fffcpu.warmup(training=True)} == expected


@pytest.mark.slow
def test_kernels_of_given_layers_are_warmed_and_no_others(threads):
    threads(1)
    layer = LeafFeedForward(3, 2, 2, 2, dtype=np.float64, rng=0)
    before = {name: array.copy() for name, array in layer.params.items()}
    warmed = fffcpu.warmup(layer, DenseFeedForward(3, 2, 4), training=True)
    assert {(one.layer, one.dtype, one.call, one.kernel) for one in warmed} == {
        ("LeafFeedForward", "float64", "inference", "_leaf_infer"),
        ("LeafFeedForward", "float64", "inference", "_gates"),
        ("LeafFeedForward", "float64", "inference", "_leaves"),
        ("LeafFeedForward", "float64", "route", "_leaf_route"),
        ("LeafFeedForward", "float64", "route", "_gates"),
        ("DenseFeedForward", "float32", "inference", "_matmul"),
        ("DenseFeedForward", "float32", "inference", "_matmul_few"),
        ("DenseFeedForward", "float32", "forward", "_matmul"),
        ("DenseFeedForward", "float32", "forward", "_matmul_few"),
        ("DenseFeedForward", "float32", "forward", "_activate"),
        ("DenseFeedForward", "float32", "backward", "_matmul"),
        ("DenseFeedForward", "float32", "backward", "_matmul_few"),
        ("DenseFeedForward", "float32", "backward", "_activate"),
        ("DenseFeedForward", "float32", "backward", "_backpropagate"),
    }
    for name, array in layer.params.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        FastBertEncoder,
        FastBertForMaskedLM,
        FastBertForSequenceClassification,
        BertForMaskedLM,
        BertForSequenceClassification,
    ],
)
def test_kernels_of_a_model_are_warmed(threads, kind):
    threads(1)
    config = kind.config_type(
        *(30, 8, 3, 2), feedforward="ff", feedforward_size=4, positions=4, padding_id=7, classes=2
    )
    warmed = fffcpu.warmup(kind(config, rng=0), training=True)
    assert {one.layer for one in warmed} == {kind.__name__}
    products = {"_matmul", "_matmul_few"}
    inference = {"_layer_norm", "_attention", *products}
    forward = inference | {"_activate"}
    transformed = {"_activate"} if kind is BertForMaskedLM else set()
    backward = {"_layer_norm_backward", "_attention_backward", "_backpropagate", "_activate"}
    backward |= {"_add_rows", *products}
    losses = set() if kind is FastBertEncoder else {"_cross_entropy"}
    residuals = {"_add_layer_norm"} if kind.config_type is BertConfig else set()
    expected = {
        "inference": inference | residuals | transformed,
        "forward": forward | losses,
        "backward": backward,
    }
    for call, names in expected.items():
        assert {one.kernel for one in warmed if one.call == call} == names


def test_without_the_jit_there_is_nothing_to_warm(monkeypatch):
    monkeypatch.setattr(jit, "JIT", False)
    monkeypatch.setattr(kernels, "selection", kernels.selection.__wrapped__)
    assert fffcpu.warmup() == ()
    assert startup.cache_folder() is None


def test_without_numba_there_is_nothing_to_warm(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(kernels, "selection", kernels.selection.__wrapped__)
    assert fffcpu.warmup() == ()
    assert startup.cache_folder() is None


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("layer.safetensors",), {}, ArgumentTypeError, "argument 'layers' must be layers or"),
        ((FastFeedForward,), {}, ArgumentTypeError, "argument 'layers' must be layers or"),
        ((), {"dtype": "float16"}, ArgumentError, "argument 'dtype' must be float32 or float64"),
        ((), {"training": 1}, ArgumentTypeError, "argument 'training' must be True or False"),
    ],
)
def test_wrong_arguments_are_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        fffcpu.warmup(*arguments, **options)


# --- What it leaves to do -------------------------------------------------------------------------

AFTER_WARMUP = """
import warnings
import numpy as np
import fffcpu
from fffcpu import FastFeedForward, LeafFeedForward, cmm
from fffcpu.models import FastBertConfig, FastBertForMaskedLM

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fffcpu.warmup(training=True)
print(*(f"{w.category.__name__}: {w.message}" for w in caught), sep="\\n")

from fffcpu.kernels import elementwise, jit, simd
from fffcpu.kernels.encoder import fused as fused_rows
from fffcpu.kernels.backends import gradients
from fffcpu.kernels.backends import grouped
from fffcpu.kernels.backends import rowwise

dispatchers = {
    value
    for module in (elementwise, fused_rows, gradients, grouped, jit, rowwise, simd)
    for value in vars(module).values()
    if hasattr(value, "py_func")
}


def versions():
    return {kernel.__name__: len(kernel.signatures) for kernel in dispatchers}


before = versions()
jit.MIN_PARALLEL_WORK = 1 << 18  # so that the pool is used
rng = np.random.default_rng(0)
for bias in (False, True):
    fast = FastFeedForward(70, 40, 5, trees=2, bias=bias, rng=0)
    leaf = LeafFeedForward(70, 40, 3, 4, rng=0)
    for rows in (1, 5, 2000):
        x = rng.standard_normal((rows, 70)).astype(np.float32)
        for layer in (fast, leaf):
            layer(x)
            layer.route(x)
            y, cache = layer.forward(x)
            layer.backward(y, cache)
        fast.backward(*fast.forward(x), straight_through=True)
        cmm(x, fast.params["weights_in"], fast.params.get("bias_in"))
config = FastBertConfig(50, 24, 2, 3, feedforward_size=2, depth=3, positions=20)
model = FastBertForMaskedLM(config, rng=0)
for rows in (1, 40):
    ids = rng.integers(1, 50, (rows, 20))
    mask = np.arange(20) < rng.integers(1, 21, (rows, 1))
    model(ids, mask)
    loss, cache = model.forward(ids, mask, labels=ids, rng=rng)
    model.backward(cache)
assert versions() == before, "a call after the warm-up compiled"
print("done")
"""


@pytest.mark.slow
def test_after_it_no_call_of_any_size_compiles(program):
    path = program(AFTER_WARMUP)
    assert run(path, NUMBA_NUM_THREADS="2") == ["", "done"]


WARMUP_OF_A_LAYER = """
import warnings
import numpy as np
from fffcpu import FastFeedForward, warmup

layer = FastFeedForward(70, 40, 5, trees=2, rng=0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    warmup(layer)
    layer(np.ones((3, 70)))
print(*(f"{w.category.__name__}: {w.message}" for w in caught), sep="\\n")
from fffcpu.kernels.backends import rowwise

assert len(rowwise._path_infer.signatures) == 1, "a call after the warm-up compiled"
print("done")
"""


@pytest.mark.slow
def test_it_works_with_one_warning_where_nothing_can_be_kept(program, tmp_path):
    nowhere = """
import tempfile


def refuse(*arguments, **keywords):
    raise OSError("read-only file system")


tempfile.TemporaryFile = refuse  # with which Numba tries out a folder
from fffcpu.kernels._numba import cache

cache._Readable.ensure_cache_path = refuse
"""
    (tmp_path / "file").touch()
    path = program(nowhere, WARMUP_OF_A_LAYER)
    warning, done = run(path, NUMBA_NUM_THREADS="1", HOME=str(tmp_path / "file" / "home"))
    assert warning.startswith("RuntimeWarning: compiled kernels cannot be kept on disk")
    assert done == "done"


# --- Two at once ----------------------------------------------------------------------------------

CHECK = """
import numpy as np
from fffcpu import FastFeedForward
from fffcpu.config import Activation
from fffcpu import kernels
from fffcpu.kernels import jit
from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.weights import PathWeights

jit.MIN_PARALLEL_WORK = 1
layer = FastFeedForward(20, 12, 3, rng=0)
x = np.random.default_rng(0).standard_normal((40, 20)).astype(np.float32)
expected = np.empty((40, 12), np.float32)
vectorized.path_infer(expected, x, *PathWeights.of(layer.params), int(Activation.GELU))
np.testing.assert_allclose(layer(x), expected, atol=1e-6)
for row, right in zip(x, layer(x)):
    assert np.array_equal(layer(row), right)
print("right")
"""


def start_warmup(cache, layer):
    """Start the command for a layer's file on a cache of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGE.parent),
        "NUMBA_CACHE_DIR": str(cache),
        "NUMBA_NUM_THREADS": "2",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "fffcpu", "warmup", str(layer), "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_warmup(process):
    """Where the kernels came from, and in which folder they are kept."""
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert err == ""
    report = json.loads(out)
    kernels = {(kernel["kernel"], kernel["parallel"]) for kernel in report["kernels"]}
    assert kernels == on_caller_and_pool({"_path_infer", "_path_logits", "_paths"})
    return {kernel["source"] for kernel in report["kernels"]}, report["cache"]


@pytest.mark.slow
@pytest.mark.thorough
def test_two_processes_that_fill_one_cache_leave_it_whole(program, tmp_path):
    path = program(CHECK)
    cache, layer = tmp_path / "cache", tmp_path / "layer.safetensors"
    FastFeedForward(20, 12, 3, rng=0).save(layer)
    processes = [start_warmup(cache, layer) for _ in range(2)]
    for process in processes:
        _, folder = finish_warmup(process)
        assert folder.startswith(str(cache))
    assert run(path, NUMBA_CACHE_DIR=str(cache), NUMBA_NUM_THREADS="2") == ["right"]
    # Mends what one may have written over the other's.
    finish_warmup(start_warmup(cache, layer))
    sources, _ = finish_warmup(start_warmup(cache, layer))
    assert sources == {"cache"}
