"""FastBertEncoder: shapes, masks, memory shared with its parts, gradients, dropout."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.errors import ArgumentTypeError, ShapeError
from fffcpu.models import FastBertConfig, FastBertEncoder
from fffcpu.parameters import RowGradient
from tests.config.test_fastbert import CONFIGS
from tests.support.finite_differences import check_gradients


def encoder_of(dtype="float64", seed=0, std=0.5, **changes):
    """An encoder whose layers do something, with numbers that are not small."""
    fields = {"vocabulary": 11, "width": 8, "layers": 2, "heads": 2, "feedforward_size": 2}
    fields |= {"depth": 2, "positions": 6, "initial_std": std, "dtype": dtype}
    return FastBertEncoder(FastBertConfig(**(fields | changes)), rng=seed)


def ids_of(batch=3, length=5, seed=0):
    return np.random.default_rng(seed).integers(1, 11, (batch, length))


@given(config=CONFIGS, batch=st.integers(0, 3), seed=st.integers(0, 99), masked=st.booleans())
def test_every_config_makes_an_encoder(config, batch, seed, masked):
    encoder = FastBertEncoder(config, rng=seed)
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, config.positions + 1))
    ids = rng.integers(0, config.vocabulary, (batch, length))
    mask = rng.integers(0, 2, ids.shape) if masked else None
    hidden = encoder(ids, mask)
    assert hidden.shape == (batch, length, config.width)
    assert hidden.dtype == np.float32
    again, cache = encoder.forward(ids, mask)
    np.testing.assert_allclose(again, hidden, atol=1e-4)
    grads = encoder.backward(np.ones_like(hidden), cache)
    assert {name: grad.shape for name, grad in grads.items()} == encoder.config.shapes()
    assert list(grads) == list(encoder.params)


def test_parts_work_on_the_memory_of_the_model():
    encoder = encoder_of()
    layer = encoder.layers[1]
    for part, prefix in (
        (encoder.embedding, "encoder.embedding"),
        (encoder.norm, "encoder.embedding.norm"),
        (layer.attention, "encoder.layers.1.attention"),
        (layer.feedforward, "encoder.layers.1.feedforward"),
        (encoder.final_norm, "encoder.final_norm"),
    ):
        for name, array in part.params.items():
            assert array is encoder.params[f"{prefix}.{name}"]
    before = encoder(ids_of())
    encoder.params["encoder.layers.1.feedforward.weights_out"][...] *= 2
    assert np.abs(encoder(ids_of()) - before).max() > 1e-3


@pytest.mark.parametrize(
    ("feedforward", "two_sided"), [("fff", False), ("fff", True), ("ff", False)]
)
@pytest.mark.parametrize("rng", [None, 4])
def test_gradients(feedforward, two_sided, rng):
    encoder = encoder_of(feedforward=feedforward, two_sided=two_sided, dropout=0.2)
    ids, mask = ids_of(), np.ones((3, 5), int)
    mask[1, 3:] = 0
    hidden, cache = encoder.forward(ids, mask, rng)
    if feedforward == "fff":
        assert min(np.abs(layer.feedforward.logits).min() for layer in cache.layers) > 1e-4
    dy = np.random.default_rng(2).standard_normal(hidden.shape)
    grads = encoder.backward(dy, cache)
    pairs = [(encoder.params[name], grad) for name, grad in grads.items()]
    check_gradients(lambda: (encoder.forward(ids, mask, rng)[0] * dy).sum(), pairs)


@pytest.mark.parametrize("row_sparse", [False, True])
def test_routes_have_gradients_if_they_are_to(row_sparse):
    encoder = encoder_of(layers=1, two_sided=True)
    hidden, cache = encoder.forward(ids_of())
    dy = np.random.default_rng(2).standard_normal(hidden.shape)
    grads = encoder.backward(dy, cache, row_sparse=row_sparse, straight_through=True)
    dh, _ = encoder.final_norm.backward(dy, cache.final_norm)
    own = cache.layers[0].feedforward
    _, expected = encoder.layers[0].feedforward.backward(dh, own, straight_through=True)
    for name, grad in expected.items():
        found = grads[f"encoder.layers.0.feedforward.{name}"]
        np.testing.assert_array_equal(found.dense() if row_sparse else found, grad)
    constant = encoder.backward(dy, cache)
    assert np.abs(constant["encoder.embedding.words"] - grads["encoder.embedding.words"]).max() > 0


def test_padding_changes_nothing():
    encoder = encoder_of()
    ids = ids_of(2, 4)
    padded = np.zeros((2, 6), int)
    padded[:, :4] = ids
    hidden = encoder(padded, (padded > 0).astype(int))[:, :4]
    np.testing.assert_allclose(hidden, encoder(ids), atol=1e-10)
    assert np.abs(encoder(padded)[:, :4] - hidden).max() > 1e-3


def test_sequences_do_not_see_each_other():
    encoder = encoder_of()
    ids = ids_of(5)
    alone = np.concatenate([encoder(ids[k : k + 1]) for k in range(5)])
    np.testing.assert_allclose(encoder(ids), alone, atol=1e-10)


def test_dropout_is_for_those_who_ask():
    encoder = encoder_of(dropout=0.5, embedding_dropout=0.5, attention_dropout=0.5)
    plain, _ = encoder.forward(ids_of())
    np.testing.assert_allclose(plain, encoder(ids_of()), atol=1e-12)
    first, again, other = (encoder.forward(ids_of(), rng=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - plain).max() > 1e-3
    undropped = encoder_of(dropout=0, embedding_dropout=0, attention_dropout=0)
    np.testing.assert_array_equal(undropped.forward(ids_of(), rng=1)[0], plain)


def test_row_sparse_gradients_are_the_dense_ones():
    encoder = encoder_of(depth=4)
    hidden, cache = encoder.forward(ids_of(1, 2))
    dense = encoder.backward(np.ones_like(hidden), cache)
    sparse = encoder.backward(np.ones_like(hidden), cache, row_sparse=True)
    for name, grad in sparse.items():
        assert isinstance(grad, RowGradient) == ("feedforward" in name)
        whole = grad.dense() if isinstance(grad, RowGradient) else grad
        np.testing.assert_array_equal(whole, dense[name])


def arrays_in(cache):
    """The arrays of a cache, however deep, without those that share memory with another."""
    if isinstance(cache, np.ndarray):
        owner = cache
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        return {owner.ctypes.data: cache.nbytes}
    parts = cache if isinstance(cache, tuple) else ()
    return {address: size for part in parts for address, size in arrays_in(part).items()}


@pytest.mark.parametrize("feedforward", ["fff", "ff"])
def test_a_training_step_keeps_no_more_than_is_said(feedforward):
    changes = {"width": 32, "heads": 4, "feedforward": feedforward, "feedforward_size": 9}
    encoder = encoder_of("float32", positions=50, depth=3, layers=3, **changes)
    _, cache = encoder.forward(ids_of(7, 50))
    kept = 9 if feedforward == "ff" else 2 * 9 * 4
    numbers = 2 * 32 + 3 * (8 * 32 + 4 * 50 + kept)
    moments = 2 * (2 * 3 + 2)
    ids = 2
    assert sum(arrays_in(cache).values()) == 7 * 50 * 4 * (numbers + moments + ids)


def test_initial_values():
    encoder = encoder_of(vocabulary=500, width=64, depth=5, std=0.05)
    for name, array in encoder.params.items():
        if name.endswith(("norm.scale", "norm1.scale", "norm2.scale")):
            assert (array == 1).all(), name
        elif name.endswith(("bias", "bias_in")):
            assert not array.any(), name
        elif name.endswith("position_scale"):
            assert array == 1 / 8
        else:
            assert abs(array.std() - 0.05) < 0.003, name
    assert not encoder.params["encoder.embedding.words"][0].any()


def test_copies_have_their_own_numbers():
    encoder = encoder_of()
    before = encoder(ids_of())
    for twin in (encoder.copy(), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(twin(ids_of()), before)
        for array in twin.params.values():
            array[...] = 0
        np.testing.assert_array_equal(encoder(ids_of()), before)


def test_its_text_says_what_it_is():
    assert repr(encoder_of()).startswith(
        "<FastBertEncoder: 2 layers of width 8, 2 heads, feedforwards of 2 trees of depth 2, "
        "11 tokens; "
    )
    assert "feedforwards of 2 neurons" in repr(encoder_of(feedforward="ff"))
    assert encoder_of().nbytes == 8 * encoder_of().params.count


def test_many_threads_may_call_at_once():
    encoder, found = encoder_of(), [None] * 4
    expected = [encoder(ids_of(seed=seed)) for seed in range(4)]

    def run(seed):
        found[seed] = encoder(ids_of(seed=seed))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_wrong_arguments_are_errors():
    encoder = encoder_of()
    with pytest.raises(ShapeError, match="sequence of 1 to 6 positions"):
        encoder(ids_of(2, 7))
    with pytest.raises(ShapeError, match=r"'attention_mask' must have shape \(2, 5\)"):
        encoder(ids_of(2, 5), np.ones((2, 6)))
    with pytest.raises(ArgumentTypeError, match="'cache' must be the EncoderCache"):
        encoder.backward(np.ones((2, 5, 8)), ())
    _, cache = encoder.forward(ids_of())
    with pytest.raises(ArgumentTypeError, match="'row_sparse' must be True or False"):
        encoder.backward(np.ones((3, 5, 8)), cache, row_sparse=1)
    with pytest.raises(ArgumentTypeError, match="'rng' must be None, a seed"):
        encoder.forward(ids_of(), rng="seed")
