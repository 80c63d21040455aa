"""What the timing does and checks; nothing here asserts how fast anything is."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.speed import shapes
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward
from fffcpu.benchmarking import timing
from fffcpu.benchmarking.timing import (
    DISTINCT_ROWS,
    Contender,
    Timing,
    WrongOutputError,
    alternate,
    check_dense,
    check_leaves,
    check_paths,
    cycling,
    describe_machine,
    distinct_batches,
    path_arguments,
    ratio,
)
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.kernels.backends import vectorized
from tests.support.processes import run_module


def run_plain(layer: FastFeedForward, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output and routes by the plain backend."""
    config = layer.config
    shape = (len(x), config.trees, config.depth + 1)
    y = np.empty((len(x), config.output_dim), config.dtype)
    nodes = np.empty(shape, np.int32)
    logits = np.empty(shape, config.dtype)
    vectorized.path_forward(y, logits, nodes, x, *layer._weights.trained, layer._activation)
    return y, nodes


def random_rows(rows: int, width: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, width)).astype(dtype)


# --- Alternation --------------------------------------------------------------------------------


def test_contenders_run_once_untimed_and_then_take_turns():
    log: list[str] = []
    contenders = [Contender(name, lambda name=name: log.append(name), 1) for name in "ABC"]
    timings = alternate(contenders, repeats=3, min_time=0, rest=0)
    # One untimed call and one that finds out how long a call takes, then three rounds.
    assert "".join(log) == "AABBCC" + 3 * "ABC"
    assert [timing.name for timing in timings] == ["A", "B", "C"]
    assert all(timing.calls == 1 and len(timing.seconds) == 3 for timing in timings)
    assert all(seconds > 0 for timing in timings for seconds in timing.seconds)


def test_a_measurement_repeats_calls_until_it_is_long_enough():
    count = itertools.count()
    (figures,) = alternate([Contender("fast", lambda: next(count), 3)], 2, min_time=0.002, rest=0)
    # The untimed call, the calls that found out how many are needed, and two rounds.
    assert next(count) >= 1 + 3 * figures.calls
    assert figures.rows == 3


@pytest.mark.parametrize("call_seconds", [1e-9, 1e-6, 3e-3, 0.04, 0.05, 2.0])
def test_calls_fill_the_time_and_little_more(call_seconds):
    class Clockwork:
        def timeit(self, number: int) -> float:
            return number * call_seconds

    calls = timing._calls_to_fill(Clockwork(), 0.05)
    assert calls * call_seconds >= 0.05
    assert calls == 1 or calls * call_seconds <= 0.12


def test_rests_before_each_measurement(monkeypatch):
    rests: list[float] = []
    monkeypatch.setattr(timing.time, "sleep", rests.append)
    alternate([Contender("A", list, 1), Contender("B", list, 1)], 2, min_time=0, rest=0.25)
    assert rests == 4 * [0.25]


def test_an_error_of_a_contender_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        alternate([Contender("wrong", lambda: 1 / 0, 1)])


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"contenders": []}, ArgumentError, "contenders"),
        ({"contenders": [Contender("A", list, 0)]}, ArgumentError, "rows"),
        ({"repeats": 0}, ArgumentError, "repeats"),
        ({"repeats": 1.5}, ArgumentTypeError, "repeats"),
        ({"min_time": -1}, ArgumentError, "min_time"),
        ({"min_time": "long"}, ArgumentTypeError, "min_time"),
        ({"rest": float("nan")}, ArgumentError, "rest"),
    ],
)
def test_wrong_arguments_are_named(options, error, name):
    with pytest.raises(error, match=f"argument '{name}'"):
        alternate(**{"contenders": [Contender("A", list, 1)], **options})


def test_work_travels_from_contender_to_timing():
    work = timing.Work(flops=6e3, bytes=3e3)
    worker, idler = alternate(
        [Contender("A", list, 1, work), Contender("B", list, 1)], 1, min_time=0, rest=0
    )
    assert worker.work == work
    assert (idler.work, idler.gigaflops, idler.gigabytes) == (None, None, None)


def test_rates_of_a_timing():
    figures = Timing("A", 4, 10, (2e-6, 1e-6, 3e-6), timing.Work(flops=4e4, bytes=2e3))
    assert figures.gigaflops == pytest.approx(20)
    assert figures.gigabytes == pytest.approx(1)


def test_figures_of_a_timing():
    figures = Timing("A", rows=4, calls=10, seconds=(8e-6, 4e-6, 6e-6))
    assert figures.microseconds == pytest.approx(1.5)
    assert figures.rows_per_second == pytest.approx(1e6 / 1.5)
    assert figures.spread == pytest.approx(1 / 6)


def test_ratio_is_the_median_over_rounds_of_times_a_row():
    # Ratios by round: 2, 10 and 3 a call, over twice as many rows.
    slow = Timing("slow", rows=2, calls=1, seconds=(2.0, 10.0, 9.0))
    fast = Timing("fast", rows=1, calls=5, seconds=(1.0, 1.0, 3.0))
    assert ratio(slow, fast) == pytest.approx(1.5)
    assert ratio(fast, fast) == 1


def test_ratios_of_the_rounds():
    slow, fast = Timing("slow", 2, 1, (2.0, 10.0)), Timing("fast", 1, 5, (1.0, 1.0))
    assert timing.ratios(slow, fast) == pytest.approx([1, 5])


def test_ratio_needs_one_alternation():
    with pytest.raises(ArgumentError, match="got 2 and 1 rounds"):
        ratio(Timing("A", 1, 1, (1.0, 1.0)), Timing("B", 1, 1, (1.0,)))


# --- Inputs -------------------------------------------------------------------------------------


def test_cycling_takes_the_inputs_in_turn():
    run = cycling(lambda x, y: (x, y), [1, 2, 3], "ab")
    assert [run() for _ in range(7)] == [
        (1, "a"),
        (2, "b"),
        (3, "a"),
        (1, "b"),
        (2, "a"),
        (3, "b"),
        (1, "a"),
    ]


@pytest.mark.parametrize("rows", [3, timing.OUTPUT_GIVEN])
def test_inference_goes_through_the_batches(rows):
    layer = FastFeedForward(3, 2, 1, rng=0)
    batches = [random_rows(rows, 3) + shift for shift in range(3)]
    run = timing.inference(layer, batches)
    outputs = [run() for _ in range(4)]
    np.testing.assert_array_equal(outputs[3], layer(batches[0]))
    np.testing.assert_array_equal(outputs[2], layer(batches[2]))
    # Large outputs go to two arrays in turn.
    assert (outputs[0] is outputs[2]) == (rows >= timing.OUTPUT_GIVEN)
    assert outputs[0] is not outputs[1]


@pytest.mark.parametrize(
    ("rows", "batches"), [(1, 4096), (16, 256), (1000, 5), (4096, 2), (5000, 2)]
)
def test_batches_are_distinct(rows, batches):
    arrays = distinct_batches(rows, 3, rng=0)
    assert len(arrays) == batches
    assert {array.shape for array in arrays} == {(rows, 3)}
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in arrays)
    everything = np.concatenate(arrays)
    assert len(everything) >= DISTINCT_ROWS
    assert len(np.unique(everything, axis=0)) == len(everything)


def test_batches_follow_the_seed_and_dtype():
    first, again, other = (distinct_batches(2048, 2, np.float64, seed)[0] for seed in (1, 1, 2))
    assert first.dtype == np.float64
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# --- Checks -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 6), st.integers(0, 4), st.integers(1, 3)),
    rows=st.integers(0, 12),
    bias=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    activation=st.sampled_from(["gelu", "relu", "identity"]),
)
def test_right_outputs_pass(sizes, rows, bias, dtype, activation):
    layer = FastFeedForward(*sizes, bias=bias, dtype=dtype, activation=activation, rng=3)
    x = random_rows(rows, sizes[0], dtype)
    y, nodes = run_plain(layer, x)
    leaves = check_paths(layer, x, y, nodes)
    assert leaves == len({(t, n) for row in nodes[:, :, -1].tolist() for t, n in enumerate(row)})
    assert check_paths(layer, x, layer(x), layer.route(x)) == leaves


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.0])
def test_a_wrong_output_is_told(wrong):
    layer = FastFeedForward(16, 4, 3, rng=0)
    x = random_rows(9, 16)
    y, nodes = run_plain(layer, x)
    y[5, 2] += wrong
    with pytest.raises(WrongOutputError, match="outputs differ"):
        check_paths(layer, x, y, nodes)


def test_a_wrong_route_is_told():
    layer = FastFeedForward(16, 4, 3, rng=0)
    x = random_rows(9, 16)
    y, nodes = run_plain(layer, x)
    nodes[3, 0, 3] ^= 1
    with pytest.raises(WrongOutputError, match="routes"):
        check_paths(layer, x, y, nodes)


def test_a_tie_may_go_either_way():
    layer = FastFeedForward(2, 1, 1, bias=False, rng=0)
    layer.params["weights_in"][0, 0] = 0  # so every logit of the root is 0
    x = random_rows(5, 2)
    y, nodes = run_plain(layer, x)
    nodes[2, 0, 1] = 2
    y[2] = 100  # the output of another path is not comparable
    assert check_paths(layer, x, y, nodes) == 2


def test_outputs_close_to_another():
    expected = np.array([[1.0, -2.0]])
    timing.check_close(expected * 1.01, expected, 0.011)
    for wrong in (expected * 1.02, expected * np.nan):
        with pytest.raises(WrongOutputError, match="outputs differ"):
            timing.check_close(wrong, expected, 0.011)
    with pytest.raises(WrongOutputError, match="shape"):
        timing.check_close(expected[0], expected, 1)


@pytest.mark.parametrize("depth", [0, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_leaf_outputs_are_checked(depth, dtype):
    layer = LeafFeedForward(6, 4, depth, 3, dtype=dtype, rng=0)
    x = random_rows(40, 6, dtype)
    y, leaves = layer(x), layer.route(x)
    assert check_leaves(layer, x, y, leaves) == len(set(leaves.tolist()))
    y[7, 1] += 0.01
    with pytest.raises(WrongOutputError, match="outputs differ"):
        check_leaves(layer, x, y, leaves)


def test_a_wrong_leaf_is_told_unless_it_is_a_tie():
    layer = LeafFeedForward(6, 4, 3, 3, rng=0)
    x = random_rows(40, 6)
    y, leaves = layer(x), layer.route(x)
    leaves[3] ^= 1
    with pytest.raises(WrongOutputError, match="leaves"):
        check_leaves(layer, x, y, leaves)
    gate = 3 + (leaves[3] >> 1)  # the last on the way
    layer.params["gate_weights"][gate] = layer.params["gate_bias"][gate] = 0
    fresh = layer(x)
    leaves = layer.route(x)
    leaves[3] ^= 1
    check_leaves(layer, x, fresh, leaves)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dense_outputs_are_checked(bias, dtype):
    layer = DenseFeedForward(7, 3, 50, bias=bias, dtype=dtype, rng=0)
    x = random_rows(4, 7, dtype)
    y = layer(x)
    check_dense(layer, x, y)
    y[1, 1] *= 1.01
    with pytest.raises(WrongOutputError):
        check_dense(layer, x, y)


def test_path_arguments_hold_the_parameters_themselves():
    layer = FastFeedForward(5, 4, 2, 3, bias=False, activation="relu", rng=0)
    weights_in, bias_in, weights_out, scale_in, scale_out, activation = path_arguments(layer)
    assert np.shares_memory(weights_in, layer.params["weights_in"])
    assert np.shares_memory(weights_out, layer.params["weights_out"])
    assert bias_in.tolist() == np.zeros((3, 7)).tolist()
    assert scale_in is scale_out is None
    assert activation == 1


# --- The machine, and the script ----------------------------------------------------------------


def test_machine_is_described_in_plain_values():
    machine = describe_machine()
    versions = ["python", "numpy", "numba"]
    assert list(machine) == ["processor", "cores", "system", *versions, "thread_layer"]
    assert machine["thread_layer"] in ("tbb", "omp", "workqueue")
    assert machine["cores"] >= 1
    assert machine["numpy"] == np.__version__
    assert json.loads(json.dumps(machine)) == machine


def test_machine_without_numba_or_proc(monkeypatch):
    def missing(name: str) -> str:
        raise timing.importlib.metadata.PackageNotFoundError(name)

    def unreadable(*args: object, **options: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(timing.importlib.metadata, "version", missing)
    monkeypatch.setattr(timing.Path, "read_text", unreadable)
    machine = describe_machine()
    assert machine["numba"] == "not installed"
    assert machine["processor"]


@pytest.mark.slow
def test_benchmark_script_prints_its_table():
    options = ("--quick", "--repeats", "1", "--seconds", "0.001")
    done = run_module("benchmarks.speed.rows", *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    table = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert len(table) == 2 + 8
    assert {len(row) for row in table} == {4}


def test_shapes_are_those_of_the_papers():
    held = {
        name: FastFeedForward(1, 1, shape.depth, shape.trees).config.neurons
        for name, shape in shapes.ULTRAFASTBERT.items()
    }
    assert held["1x11"] == 4095
    assert held["1536x1"] == 4608
    assert held["512x2"] == 3584
    assert shapes.BERT_BASE == (768, 768, 11, 1)
    for name, leaf in shapes.FAST_FEEDFORWARD.items():
        width = int(name.split("-")[1].removeprefix("w"))
        assert 2**leaf.depth * leaf.leaf_width == width, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "figures"),
    [
        (
            "benchmarks.speed.threads",
            ("--calls", "2"),
            ["FFF, B = 4", "GEMM, B = 8", "empty kernel"],
        ),
        (
            "benchmarks.speed.compile",
            (),
            ["first result, 16 rows, empty cache", "`_path_infer`, compiled", "from the cache"],
        ),
    ],
)
def test_scripts_of_threads_and_compilation_print_their_tables(script, options, figures):
    done = run_module(script, "--quick", "--repeats", "1", *options, NUMBA_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    for figure in figures:
        assert any(figure in line for line in table), figure
