"""What all layers promise alike: inputs, outputs, copies, files, errors."""

from __future__ import annotations

import copy
import pickle
import re
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fffcpu
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward
from fffcpu.checkpoints import native
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError, ShapeError
from fffcpu.kernels import jit
from fffcpu.layers import LAYERS, layer_of
from fffcpu.layers.layer import parameter_dtype

MAKERS = {
    "FastFeedForward": lambda **kw: FastFeedForward(12, 5, 3, trees=2, rng=1, **kw),
    "LeafFeedForward": lambda **kw: LeafFeedForward(12, 5, 3, 4, rng=1, **kw),
    "DenseFeedForward": lambda **kw: DenseFeedForward(12, 5, 7, rng=1, **kw),
}


@pytest.fixture(params=MAKERS, scope="module")
def make(request):
    """Maker of one kind of layer, 12 -> 5."""
    return MAKERS[request.param]


@pytest.fixture(scope="module")
def layer(make):
    """A float32 layer, 12 -> 5."""
    return make()


def rows(count=6, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((count, 12)).astype(dtype)


def layouts(x, folder):
    """The same numbers as ``x`` (6, 12) in many guises."""
    path = folder / "x.npy"
    np.save(path, x)
    readonly = x.copy()
    readonly.flags.writeable = False
    wide = np.zeros((6, 24), x.dtype)
    wide[:, ::2] = x
    return {
        "list": x.tolist(),
        "tuple of rows": tuple(x),
        "Fortran order": np.asfortranarray(x),
        "negative strides": x[::-1, ::-1].copy()[::-1, ::-1],
        "every other column": wide[:, ::2],
        "read-only": readonly,
        "memory-mapped": np.load(path, mmap_mode="r"),
        "float64": x.astype(np.float64),
        "long double": x.astype(np.longdouble),
        "big-endian": x.astype(x.dtype.newbyteorder(">")),
        "unaligned": np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(6, 12),
    }


def test_any_layout_gives_the_same_output(layer, tmp_path):
    x = rows()
    expected = layer(x)
    for name, guise in layouts(x, tmp_path).items():
        np.testing.assert_array_equal(layer(guise), expected, err_msg=name)
        np.testing.assert_allclose(layer.forward(guise)[0], layer.forward(x)[0], err_msg=name)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint16, np.int64, np.bool_])
def test_other_number_types_are_converted(layer, dtype):
    x = np.random.default_rng(0).integers(0, 2, (6, 12)).astype(dtype)
    y = layer(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, layer(x.astype(np.float32)))


@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (3, 0, 2), (2, 1, 3)])
def test_leading_axes_are_kept(layer, leading):
    x = rows(max(1, int(np.prod(leading, dtype=int))))[: int(np.prod(leading, dtype=int))]
    y = layer(x.reshape(*leading, 12))
    assert y.shape == (*leading, 5)
    if not isinstance(layer, DenseFeedForward):
        np.testing.assert_array_equal(y.reshape(-1, 5), layer(x))
    trained, cache = layer.forward(x.reshape(*leading, 12))
    assert trained.shape == (*leading, 5)
    dx, grads = layer.backward(np.ones((*leading, 5)), cache)
    assert dx.shape == (*leading, 12)
    assert {name: grad.shape for name, grad in grads.items()} == {
        name: array.shape for name, array in layer.params.items()
    }
    assert {grad.dtype for grad in grads.values()} == {np.dtype(np.float32)}
    assert dx.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_output_has_the_dtype_of_the_parameters(make, dtype):
    layer = make(dtype=dtype)
    assert layer(rows()).dtype == dtype
    assert layer.forward(rows())[0].dtype == dtype


def test_out_is_filled_and_returned(layer):
    x = rows()
    out = np.full((6, 5), 7, np.float32)
    assert layer(x, out=out) is out
    np.testing.assert_array_equal(out, layer(x))


def test_out_may_have_any_strides(layer):
    x = rows()
    holder = np.full((6, 10), 7, np.float32)
    layer(x, out=holder[:, ::2])
    np.testing.assert_array_equal(holder[:, ::2], layer(x))
    assert (holder[:, 1::2] == 7).all()
    fortran = np.empty((2, 3, 5), np.float32, order="F")
    np.testing.assert_array_equal(
        layer(x.reshape(2, 3, 12), out=fortran), layer(x).reshape(2, 3, 5)
    )


@pytest.mark.parametrize("shift", [-13, -12, -1, 0, 1, 12, 13])
def test_out_may_overlap_the_input(shift):
    """Both are whole contiguous runs of one memory, some numbers apart."""
    for layer in (FastFeedForward(12, 12, 3, rng=0), LeafFeedForward(12, 12, 2, 3, rng=0)):
        memory = np.zeros(120, np.float32)
        x = memory[24 : 24 + 72].reshape(6, 12)
        x[...] = rows()
        expected = layer(x)
        out = memory[24 + shift : 24 + shift + 72].reshape(6, 12)
        assert layer(x, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_out_may_be_masked(layer):
    out = np.ma.zeros((6, 5), np.float32)
    assert layer(rows(), out=out) is out
    np.testing.assert_array_equal(np.asarray(out), layer(rows()))


@pytest.mark.slow
def test_inference_allocates_the_output_and_a_block():
    layer = FastFeedForward(12, 64, 5, rng=0)

    def peak(shape, own_output):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        x.flags.writeable = False
        out = None if own_output else np.empty((*shape[:-1], 64), np.float32)
        layer(x, out=out)
        with jit.serial():
            tracemalloc.start()
            layer(x, out=out)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return most

    block = peak((4096, 12), own_output=False)
    assert block < 200_000
    assert peak((64, 64, 12), own_output=False) < 1.1 * block
    assert peak((65536, 12), own_output=False) < 1.1 * block
    size = 4096 * 64 * 4
    assert size <= peak((4096, 12), own_output=True) < size + 1.1 * block


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((6, 4), np.float32), ShapeError, r"'out' .* shape \(6, 5\), got shape \(6, 4\)"),
        (np.empty((5, 5), np.float32), ShapeError, r"'out' .* shape \(6, 5\), got shape \(5, 5\)"),
        (np.empty((6, 5), np.float64), ArgumentTypeError, "'out' must be an array of float32"),
        ([[0.0] * 5] * 6, ArgumentTypeError, "'out' must be an array of float32"),
    ],
)
def test_a_wrong_out_is_an_error(layer, out, error, message):
    with pytest.raises(error, match=message):
        layer(rows(), out=out)


def test_a_read_only_out_is_an_error(layer):
    out = np.empty((6, 5), np.float32)
    out.flags.writeable = False
    with pytest.raises(ArgumentError, match="'out' must be writable, got a read-only array"):
        layer(rows(), out=out)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((3, 11)), ShapeError, r"'x' must have shape \(\.\.\., 12\), got shape \(3, 11\)"),
        (1.0, ShapeError, r"'x' must have shape"),
        (np.ones((3, 12), complex), ArgumentTypeError, "'x' must hold real numbers"),
        ([["a"] * 12], ArgumentTypeError, "'x' must hold real numbers"),
        (np.array([[None] * 12]), ArgumentTypeError, "'x' must hold real numbers"),
        ([[1.0] * 12, [1.0] * 11], ShapeError, "'x' must be rectangular"),
        (None, ArgumentTypeError, "'x' must hold real numbers"),
    ],
)
@pytest.mark.parametrize("method", ["__call__", "forward", "route"])
def test_a_wrong_input_is_an_error(layer, method, x, error, message):
    if hasattr(layer, method):
        with pytest.raises(error, match=message):
            getattr(layer, method)(x)


def test_a_wrong_upstream_gradient_is_an_error(layer):
    _, cache = layer.forward(rows())
    for dy in (np.ones((6, 4)), np.ones((5, 5)), np.ones((2, 3, 5)), np.ones((6, 5), complex)):
        with pytest.raises((ShapeError, ArgumentTypeError), match="'dy'"):
            layer.backward(dy, cache)


OTHERS = {
    FastFeedForward: [
        lambda: FastFeedForward(12, 5, 2, trees=2),
        lambda: FastFeedForward(12, 5, 3, trees=1),
        lambda: FastFeedForward(13, 5, 3, trees=2),
        lambda: FastFeedForward(12, 5, 3, trees=2, dtype=np.float64),
    ],
    LeafFeedForward: [
        lambda: LeafFeedForward(12, 5, 2, 4),
        lambda: LeafFeedForward(12, 5, 3, 5),
        lambda: LeafFeedForward(13, 5, 3, 4),
        lambda: LeafFeedForward(12, 5, 3, 4, dtype=np.float64),
    ],
    DenseFeedForward: [
        lambda: DenseFeedForward(12, 5, 8),
        lambda: DenseFeedForward(13, 5, 7),
        lambda: DenseFeedForward(12, 5, 7, dtype=np.float64),
    ],
}


def test_a_cache_of_another_layer_is_an_error(layer):
    with pytest.raises(ArgumentTypeError, match=r"'cache' must be the .*Cache that forward"):
        layer.backward(np.ones((6, 5)), None)
    for make_other in OTHERS[type(layer)]:
        other = make_other()
        _, cache = other.forward(np.ones((6, other.config.input_dim)))
        with pytest.raises(ShapeError, match=r"'cache' must be the .*Cache that forward of this"):
            layer.backward(np.ones((6, 5)), cache)


def test_a_cache_of_some_rows_is_as_good_as_their_own():
    layer = FastFeedForward(12, 5, 3, trees=2, rng=1)
    _, cache = layer.forward(rows())
    some = cache._replace(
        x=np.asfortranarray(cache.x[::2]),
        logits=cache.logits[::2],
        nodes=cache.nodes[::2],
        leading=(3,),
    )
    _, own = layer.forward(rows()[::2])
    dy = np.ones((3, 5), np.float32)
    for result, expected in zip(
        layer.backward(dy, some)[1].values(), layer.backward(dy, own)[1].values(), strict=True
    ):
        np.testing.assert_array_equal(result, expected)
    with pytest.raises(ShapeError, match=r"'cache' .* with 'logits' of shape \(3, 2, 4\)"):
        layer.backward(dy, some._replace(logits=cache.logits))


@pytest.mark.parametrize("node", [-1, 15, 2**31 - 1])
def test_a_cache_with_nodes_outside_the_tree_is_an_error(node):
    layer = FastFeedForward(12, 5, 3, trees=2, rng=1)
    y, cache = layer.forward(rows())
    cache.nodes[2, 1, 3] = node
    with pytest.raises(
        ArgumentError,
        match=(
            f"'cache' must hold nodes of this layer's trees, from 0 to 14, got {node} at index "
            r"\(2, 1, 3\) of 'nodes'"
        ),
    ):
        layer.backward(y, cache)


def test_config_and_params_stay(layer):
    with pytest.raises(AttributeError):
        layer.params = {}
    with pytest.raises(AttributeError):
        layer.config = None
    assert layer.params == layer.params
    assert layer.params != layer.copy().params


def test_copies_are_equal_and_independent(layer):
    clones = [
        layer.copy(),
        copy.copy(layer),
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
    ]
    for clone in clones:
        assert clone.config == layer.config
        np.testing.assert_array_equal(clone(rows()), layer(rows()))
        for name, array in clone.params.items():
            assert array.ctypes.data % 64 == 0
            assert not np.shares_memory(array, layer.params[name])
            array[...] = 0
    assert layer(rows()).any()


def test_changing_parameters_in_place_changes_the_layer(make):
    layer = make()
    for array in layer.params.values():
        array[...] = 0
    assert not layer(rows()).any()
    with pytest.raises(TypeError):
        layer.params["weights_in"] = np.zeros(3)


def test_bytes_are_counted(layer):
    assert layer.nbytes == sum(array.nbytes for array in layer.params.values())


def test_repr_says_what_the_layer_is(layer):
    text = repr(layer)
    assert type(layer).__name__ in text
    assert "input_dim=12" in text
    assert f"{layer.config.active_neurons} of {layer.config.neurons} neurons" in text


def test_a_seed_decides_the_initial_values(make):
    first, second = make(), make()
    for name, array in first.params.items():
        np.testing.assert_array_equal(array, second.params[name])


@pytest.mark.parametrize("rng", ["seed", -1, 1.5, object()])
def test_a_wrong_rng_is_an_error(rng):
    with pytest.raises(ArgumentTypeError, match="'rng' must be None, a seed"):
        FastFeedForward(3, 3, 1, rng=rng)


def test_files_keep_the_layer_to_the_bit(layer, tmp_path):
    path = tmp_path / "layer.safetensors"
    layer.save(path)
    for loaded in (type(layer).load(path), fffcpu.load(str(path))):
        assert type(loaded) is type(layer)
        assert loaded.config == layer.config
        for name, array in loaded.params.items():
            np.testing.assert_array_equal(array, layer.params[name])
            assert array.flags.writeable
            assert array.ctypes.data % 64 == 0


def test_loading_another_kind_is_an_error(layer, tmp_path):
    path = tmp_path / "layer.safetensors"
    layer.save(path)
    other = next(kind for kind in LAYERS.values() if kind is not type(layer))
    with pytest.raises(CheckpointError, match=f"must hold a {other.__name__}, got a"):
        other.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["FastFeedForward", "LeafFeedForward"])
def test_many_threads_may_call_one_layer(kind, monkeypatch):
    monkeypatch.setattr(jit, "MIN_PARALLEL_WORK", 1 << 18)
    layer = MAKERS[kind]()
    x = rows(4001)
    expected, wrong = layer(x), []

    def work(start):
        for step in range(20):
            first = (start + step) % 300
            count = 50 if step % 2 else 3700  # a small call, and one that asks for the pool
            if not np.array_equal(layer(x[first : first + count]), expected[first : first + count]):
                wrong.append(first)

    threads = [threading.Thread(target=work, args=(13 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(
    dtypes=st.lists(
        st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64]), min_size=1
    )
)
def test_layers_from_arrays_are_as_precise_as_the_arrays(dtypes):
    wide = any(dtype in (np.float64, np.int64) for dtype in dtypes)
    arrays = [np.zeros(1, dtype) for dtype in dtypes]
    assert parameter_dtype(*arrays) == ("float64" if wide else "float32")


@pytest.mark.parametrize("kind", MAKERS)
def test_a_scaling_of_the_input_becomes_part_of_the_layer(kind):
    make = MAKERS[kind]
    layer, plain = make(dtype=np.float64), make(dtype=np.float64)
    rng = np.random.default_rng(3)
    mean, scale = rng.standard_normal(12), rng.uniform(0.5, 2, 12)
    x = rng.standard_normal((50, 12))
    layer.absorb_input_scaling(mean, scale)
    assert np.allclose(layer(x), plain((x - mean) / scale), atol=1e-12)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_scaling_of_the_output_becomes_part_of_the_layer(kind):
    layer, plain = MAKERS[kind](), MAKERS[kind]()
    scale = np.array([1.0, -2.0, 0.0, 0.5, 100.0])
    layer.absorb_output_scaling(scale)
    assert np.allclose(layer(rows()), plain(rows()) * scale, rtol=1e-5, atol=1e-5)


def test_a_layer_without_a_bias_takes_no_mean():
    layer = FastFeedForward(3, 2, 2, bias=False, rng=0)
    plain = copy.deepcopy(layer)
    layer.absorb_input_scaling(0, [2, 4, 8])
    x = np.ones((1, 3))
    assert np.array_equal(layer(x), plain(x / [2, 4, 8]))
    with pytest.raises(ArgumentError, match="'mean'"):
        layer.absorb_input_scaling(1, 1)
    with pytest.raises(ArgumentError, match="'scale'"):
        layer.absorb_input_scaling(0, [1, 0, 1])


def test_usage_counts_the_rows_of_each_node():
    layer = FastFeedForward(12, 5, 3, trees=2, rng=1)
    _, cache = layer.forward(rows(40))
    usage = layer.usage(cache)
    assert list(usage) == list(layer.params)
    counts = usage["weights_in"]
    expected = np.zeros((2, 15), int)
    for path in layer.route(rows(40)):
        for tree, visited in enumerate(path):
            expected[tree, visited] += 1
    assert np.array_equal(counts, expected)
    assert all(array is counts for array in usage.values())


def test_usage_counts_shares_of_gates_and_leaves():
    layer = LeafFeedForward(12, 5, 3, 4, rng=1)
    _, cache = layer.forward(rows(40))
    usage = layer.usage(cache)
    assert list(usage) == list(layer.params)
    assert usage["gate_bias"].shape == (7,)
    assert np.isclose(usage["leaf_bias_in"].sum(), 40)
    assert DenseFeedForward(12, 5, 7, rng=1).usage(None) == {}
    with pytest.raises(ArgumentTypeError, match="'cache'"):
        layer.usage(None)
    with pytest.raises(ArgumentTypeError, match="'cache'"):
        FastFeedForward(12, 5, 3, rng=1).usage(cache)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_keeps_notes_that_load_passes_over(kind, tmp_path):
    layer = MAKERS[kind]()
    layer.save(tmp_path / "plain")
    layer.save(tmp_path / "noted", notes={"author": '"Zoë"'})
    assert native.read_note(tmp_path / "noted", "author") == "Zoë"
    assert native.read_note(tmp_path / "plain", "author") is None
    assert fffcpu.load(tmp_path / "noted")(rows()).tobytes() == layer(rows()).tobytes()


def test_weights_that_become_subnormal_by_absorbing_become_0():
    layer = FastFeedForward(2, 2, 1, rng=0)
    layer.params["weights_in"][..., 1] = 1e-30
    layer.params["weights_out"][..., 1] = 1e-30
    layer.absorb_input_scaling(np.zeros(2), np.array([1.0, 1e10]))
    layer.absorb_output_scaling(np.array([1.0, 1e-10]))
    for name in ("weights_in", "weights_out"):
        assert layer.params[name][..., 0].all()
        assert not layer.params[name][..., 1].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaling_that_a_dtype_cannot_hold_is_refused_and_changes_nothing(dtype):
    layer = FastFeedForward(2, 3, 2, dtype=dtype, rng=0)
    before = {name: array.copy() for name, array in layer.params.items()}
    mean = 1.7e9 if dtype == np.float32 else 1e17
    with pytest.raises(ArgumentError, match=f"'mean' must .* got {re.escape(str(mean))}"):
        layer.absorb_input_scaling([0.0, mean], [1.0, 80.0])
    tiny, huge = (1e-39, 1e39) if dtype == np.float32 else (1e-309, 1e309)
    with pytest.raises(ArgumentError, match="'scale' must keep the parameters finite"):
        layer.absorb_input_scaling(0.0, [1.0, tiny])
    with pytest.raises(ArgumentError, match="'scale' must keep the parameters finite"):
        layer.absorb_output_scaling([1.0, huge, 1.0])
    for name, array in layer.params.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    "layer",
    [
        FastFeedForward(5, 3, 2, 4, two_sided=True, rng=7),
        FastFeedForward(5, 3, 2, bias=False, activation="relu", dtype="float64", rng=7),
        LeafFeedForward(5, 3, 2, 4, rng=7),
        DenseFeedForward(5, 3, 4, bias=False, rng=7),
    ],
    ids=repr,
)
def test_a_config_makes_the_layer_that_its_constructor_makes(layer):
    made = layer_of(layer.config, 7)
    assert (type(made), made.config) == (type(layer), layer.config)
    for name, array in layer.params.items():
        np.testing.assert_array_equal(made.params[name], array)
