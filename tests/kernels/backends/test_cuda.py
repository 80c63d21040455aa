"""CUDA: a clear error where there is none, and the kernels under the simulator.

What every backend must do, test_conformance.py asks of this one as well (``--kernel cuda``). Here
is what only CUDA has: arrays that stay on the GPU, and blocks, whose sizes must not matter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fffcpu
from fffcpu import kernels
from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.weights import LeafWeights
from fffcpu.testing.strategies import LeafProblem, PathProblem, numbers
from tests.support.paths import ROOT
from tests.support.processes import run_module

PACKAGE_PARENT = str(Path(fffcpu.__file__).parents[1])

INSTALL = "pip install 'fffcpu[cuda]'"

LOAD = """
from fffcpu.errors import MissingExtraError
from fffcpu.kernels import load_backend

try:
    load_backend("cuda")
except MissingExtraError as error:
    print(error)
"""

CALL = """
from fffcpu import FastFeedForward

try:
    FastFeedForward(2, 2, 1)([[1, 2]])
except ImportError as error:
    print(error)
"""

QUICK = "not d11 and not t6 and not finite_differences and not narrow and not bfloat16"
"""Leaves out what takes the simulator half of its time: the largest golden files, and gradients by
differences, which the oracle checks as well. And narrow weights, which CUDA refuses."""

CONFORMANCE = "tests/kernels/backends/test_conformance.py"

HIDE = "import sys; sys.modules[{module!r}] = None\n"


def run(*arguments, **variables):
    """Run Python to its end, with no GPU in sight."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("FFFCPU_BACKEND", "NUMBA_ENABLE_CUDASIM")
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={
            **inherited,
            "PYTHONPATH": PACKAGE_PARENT,
            "CUDA_VISIBLE_DEVICES": "",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )


# --- Without CUDA ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "variables"), [(LOAD, {}), (CALL, {"FFFCPU_BACKEND": "cuda"})], ids=["load", "call"]
)
def test_absent_gpu_is_an_error_that_names_the_extra(program, variables):
    done = run("-c", program, **variables)
    assert done.returncode == 0, done.stderr
    assert "backend 'cuda' needs an NVIDIA GPU" in done.stdout
    assert INSTALL in done.stdout


@pytest.mark.parametrize("module", ["numba", "numba.cuda"])
def test_absent_package_is_an_error_that_names_the_extra(module):
    done = run("-c", HIDE.format(module=module) + LOAD)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"module 'numba.cuda' is not installed; install it with: {INSTALL}\n"


def test_bench_tells_in_one_line_that_there_is_no_cuda():
    done = run("-m", "fffcpu", "bench", "--backends", "cuda", "--depth", "1", "--rows", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("fffcpu: error: backend 'cuda' needs")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_nothing_but_its_name_brings_cuda_in():
    done = run("-c", CALL + "import sys; print('fffcpu.kernels.backends.cuda' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


# --- Under the simulator, in a process of its own -------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--kernel", "cuda", "-m", "not slow", "-k", QUICK, CONFORMANCE),
        ("-m", "simulator", "tests/kernels/backends/test_cuda.py"),
    ],
    ids=["what every backend must do", "what CUDA has of its own"],
)
def test_simulated_kernels_pass(options):
    simulated = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    done = run("-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *options, **simulated)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_benchmark_prints_its_table():
    options = ("--quick", "--rows", "2", "--repeats", "1", "--seconds", "0")
    simulated = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    done = run_module("benchmarks.speed.cuda", *options, CUDA_VISIBLE_DEVICES="", **simulated)
    assert done.returncode == 0, done.stderr
    table = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    assert table[2][0].strip() == "FastFeedForward"
    assert {len(row) for row in table} == {6}


# --- Under the simulator --------------------------------------------------------------------------


@pytest.fixture
def gpu():
    """CUDA backend."""
    return kernels.load_backend("cuda")


def path_problem(rows=5, trees=2, depth=2, sides=2, dtype=np.float32):
    """A problem of width 11 to 9, with output weights as kernels take them."""
    rng, nodes = np.random.default_rng(0), 2 ** (depth + 1) - 1
    leading = (trees, nodes)
    shapes = ((rows, 11), (*leading, 11), leading, (*leading, sides, 9), (rows, 9))
    arrays = [numbers(rng, shape, "normal", dtype) for shape in shapes]
    return PathProblem(*arrays, "gelu", "normal")


def leaf_problem(rows=5, hidden=3, dtype=np.float32):
    """A problem of width 11 to 9, with four leaves."""
    rng = np.random.default_rng(0)
    shapes = ((3, 11), (3,), (4, 11, hidden), (4, hidden), (4, hidden, 9), (4, 9))
    arrays = (numbers(rng, shape, "normal", dtype) for shape in shapes)
    params = dict(zip(LeafWeights._fields, arrays, strict=False))
    x, dy = (numbers(rng, (rows, width), "normal", dtype) for width in (11, 9))
    return LeafProblem(x, params, dy, "relu", "normal")


def path_results(backend, p, place=np.array):
    """All that the functions of FastFeedForward write, of arrays that `place` has put somewhere."""
    shape = (len(p.x), len(p.weights_in), p.weights_in.shape[1].bit_length())
    x, weights_in, bias_in, weights_out, dy = map(place, p[:5])
    new = [np.full(shape, 7, p.x.dtype), np.full(shape, 7, np.int32), np.full_like(p.dy, 7)]
    alone_logits, alone_nodes, alone = map(place, new)
    logits, nodes, y = map(place, new)
    rows = p.weights_in[:, :, 0].size
    widths = ((p.x.shape[1],), (), p.weights_out.shape[2:])
    grads = [np.zeros((rows, *width), p.x.dtype) for width in widths]
    dx, *grads = map(place, [np.full_like(p.x, 7), *grads])
    places = place(np.arange(rows))
    backend.path_logits(alone_logits, alone_nodes, x, weights_in, bias_in, None)
    backend.path_infer(alone, x, weights_in, bias_in, weights_out, None, None, p.code)
    backend.path_forward(y, logits, nodes, x, weights_in, bias_in, weights_out, p.code)
    d_logits = place(np.full(shape, 7, p.x.dtype))
    weights = (weights_in, bias_in, weights_out)
    backend.path_choices(d_logits, dy, x, logits, nodes, *weights, p.code)
    paths = (dy, x, logits, nodes, d_logits)
    backend.path_backward(dx, *grads, *paths, places, weights_in, weights_out, p.code)
    return [alone_logits, alone_nodes, alone, y, logits, nodes, d_logits, dx, *grads]


def leaf_results(backend, p, place=np.array):
    """All that the functions of LeafFeedForward write."""
    x, *params = map(place, (p.x, *p.params.values()))
    leaves, y = map(place, (np.full(len(p.x), 7, np.int32), np.full_like(p.dy, 7)))
    backend.leaf_route(leaves, x, *params[:2])
    backend.leaf_infer(y, x, *params, None, None, p.code)
    return [leaves, y]


@pytest.mark.simulator
def test_arrays_on_the_gpu_are_used_in_place(gpu):
    paths = [(path_problem(sides=sides), path_results) for sides in (1, 2)]
    for problem, results in (*paths, (leaf_problem(), leaf_results)):
        on_host = results(gpu, problem)
        on_gpu = results(gpu, problem, place=gpu.cuda.to_device)
        for expected, result in zip(on_host, on_gpu, strict=True):
            assert not isinstance(result, np.ndarray)
            np.testing.assert_array_equal(result.copy_to_host(), expected)


@pytest.mark.simulator
def test_inference_copies_nothing_that_lies_on_the_gpu(gpu, monkeypatch):
    p = path_problem()
    y, *inputs = map(gpu.cuda.to_device, (np.zeros_like(p.dy), *p[:4]))
    expected = np.zeros_like(p.dy)
    vectorized.path_infer(expected, *p[:4], None, None, p.code)

    def copied(array):
        raise AssertionError(f"copied an array of shape {array.shape}")

    monkeypatch.setattr(gpu.cuda, "to_device", copied)
    gpu.path_infer(y, *inputs, None, None, p.code)
    np.testing.assert_allclose(y.copy_to_host(), expected, atol=1e-5)
    with pytest.raises(AssertionError, match=r"copied an array of shape \(5, 11\)"):
        gpu.path_infer(y, p.x, *inputs[1:], None, None, p.code)


@pytest.mark.simulator
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(
    "sizes",
    [
        {"LEAST_THREADS": 1, "MOST_THREADS": 1, "LANES": 1, "COLUMNS": 1},
        {"LEAST_THREADS": 16, "MOST_THREADS": 64, "LANES": 8, "COLUMNS": 8},
        {"VISITS": 1, "MOST_BLOCKS": 1},
        {"VISITS": 3, "MOST_BLOCKS": 2, "LANES": 4, "MOST_THREADS": 8},
        {"MOST_BLOCKS": 1 << 16},
    ],
    ids=["one thread", "many threads", "one block", "odd parts", "many blocks"],
)
def test_results_do_not_depend_on_sizes_of_blocks(gpu, monkeypatch, sizes, sides, dtype):
    path, tolerance = (
        path_problem(3, sides=sides, dtype=dtype),
        2e-5 if dtype == np.float32 else 1e-13,
    )
    leaves = [leaf_problem(3, hidden, dtype) for hidden in (1, 10)]
    expected = [*path_results(vectorized, path)]
    expected += [array for leaf in leaves for array in leaf_results(vectorized, leaf)]
    for name, value in sizes.items():
        monkeypatch.setattr(gpu, name, value)
    results = [*path_results(gpu, path)]
    results += [array for leaf in leaves for array in leaf_results(gpu, leaf)]
    for result, array in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, array, rtol=0, atol=tolerance)


@pytest.mark.simulator
def test_a_row_may_visit_more_nodes_than_shared_memory_holds(gpu):
    problem = path_problem(rows=2, trees=gpu.VISITS // 2 + 1, depth=1)
    expected = path_results(vectorized, problem)
    for result, array in zip(path_results(gpu, problem), expected, strict=True):
        np.testing.assert_allclose(result, array, rtol=0, atol=1e-4)


@pytest.mark.simulator
def test_an_empty_batch_launches_nothing(gpu, monkeypatch):
    for name in (
        "_path_logits",
        "_path_forward",
        "_path_choices",
        "_path_deltas",
        "_path_gradients",
    ):
        monkeypatch.setattr(gpu, name, None)
    for name in ("_leaf_route", "_leaf_infer"):
        monkeypatch.setattr(gpu, name, None)
    *_, d_weights_out = path_results(gpu, path_problem(rows=0))
    assert not d_weights_out.any()
    leaf_results(gpu, leaf_problem(rows=0))


@pytest.mark.simulator
@pytest.mark.parametrize(
    ("width", "threads"), [(1, 32), (32, 32), (33, 64), (64, 64), (255, 256), (768, 256)]
)
def test_threads_of_a_block_cover_the_width_within_limits(gpu, monkeypatch, width, threads):
    monkeypatch.setattr(gpu, "LEAST_THREADS", 32)
    monkeypatch.setattr(gpu, "MOST_THREADS", 256)
    assert gpu._threads(width) == threads


@pytest.mark.simulator
@given(
    levels=st.integers(1, 4),
    data=st.data(),
    trees=st.integers(1, 3),
    rows=st.integers(1, 12),
    sides=st.integers(1, 2),
)
def test_runs_are_the_rows_of_each_side_of_a_node(levels, data, trees, rows, sides):
    count = 2**levels - 1
    drawn = data.draw(
        st.lists(st.integers(count, 2 * count), min_size=trees * rows, max_size=trees * rows)
    )
    children = np.sort(np.array(drawn, np.int32).reshape(trees, rows), axis=1)
    runs = kernels.load_backend("cuda")._runs(children, levels, sides)
    found = {}
    for tree, level, place, side, begin, end in runs:
        assert (tree, level, place, side) not in found
        found[tree, level, place, side] = list(range(begin, end))
    expected = {}
    for tree in range(trees):
        for row, child in enumerate(children[tree]):
            for level in reversed(range(levels)):
                node = (child - 1) // 2
                side = child - 2 * node - 1 if sides == 2 else 0
                expected.setdefault((tree, level, tree * count + node, side), []).append(row)
                child = node
    assert found == expected


@pytest.mark.simulator
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_narrow_weights_are_refused(gpu, weights, monkeypatch):
    monkeypatch.setattr(kernels, "choose", lambda *_, **__: gpu)
    x = np.ones((2, 5), np.float32)
    for layer in (fffcpu.FastFeedForward(5, 4, 2, rng=0), fffcpu.LeafFeedForward(5, 4, 2, 3)):
        with pytest.raises(TypeError, match="'cuda' must be float32 or float64, got an array"):
            layer.quantize(weights)(x)
    path = fffcpu.FastFeedForward(5, 4, 2, rng=0).quantize(weights)
    with pytest.raises(TypeError, match="'cuda' must be float32 or float64, got an array"):
        path.route(x)
