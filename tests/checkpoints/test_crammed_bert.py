"""The models of UltraFastBERT: published state dicts, ours, and what differs between them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fffcpu.checkpoints import crammed_bert
from fffcpu.config import FastFeedForwardConfig
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ArgumentTypeError, CheckpointError
from tests.config.test_fastbert import CONFIGS
from tests.support.paths import GOLDEN

FOLDERS = sorted(path.parent for path in GOLDEN.glob("crammed_*/config.json"))
WORDS = "encoder.embedding.word_embedding.weight"
FACTOR = "encoder.layers.0.attn.self_attention.norm_factor"


def golden(name="crammed_fff_mlm"):
    folder = GOLDEN / name
    config = FastBertConfig.from_dict(json.loads((folder / "config.json").read_text()))
    return config, load_file(folder / "model.safetensors")


def arrays_of(config, seed):
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(s).astype(config.dtype) for name, s in config.shapes().items()
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_published_state_dicts_come_back_as_they_were(folder):
    config, state = golden(folder.name)
    arrays = crammed_bert.from_state_dict(config, state)
    assert {name: array.shape for name, array in arrays.items()} == config.shapes()
    assert list(arrays) == list(config.shapes())
    assert all(array.ctypes.data % 64 == 0 and array.flags.writeable for array in arrays.values())
    back = crammed_bert.to_state_dict(config, arrays)
    assert set(back) == set(state)
    for name, array in state.items():
        np.testing.assert_allclose(back[name], array, rtol=1e-7, atol=0)
        assert back[name].shape == array.shape


def test_golden_state_dicts_are_there():
    assert len(FOLDERS) == 3


@given(config=CONFIGS, seed=st.integers(0, 99))
def test_arrays_come_back_as_they_were(config, seed):
    arrays = arrays_of(config, seed)
    state = crammed_bert.to_state_dict(config, arrays)
    for name, array in crammed_bert.from_state_dict(config, state).items():
        np.testing.assert_array_equal(array, arrays[name])
    for name, view in crammed_bert.views(config, arrays).items():
        np.testing.assert_array_equal(view, state[name])


def test_nodes_are_tree_major_and_output_weights_are_columns():
    config, state = golden()
    arrays = crammed_bert.from_state_dict(config, state)
    for t, n in ((0, 0), (1, 5), (2, 30)):
        row = t * 31 + n
        ours, theirs = "encoder.layers.1.feedforward.", "encoder.layers.1.ffn."
        np.testing.assert_array_equal(
            arrays[f"{ours}weights_out"][t, n], state[f"{theirs}linear_out.weight"][:, row]
        )
        assert arrays[f"{ours}bias_in"][t, n] == state[f"{theirs}linear_in.bias"][row]


def test_sides_of_a_node_are_neighbouring_columns():
    config = FastBertConfig(9, 4, 1, 2, feedforward_size=2, depth=1, two_sided=True)
    arrays = arrays_of(config, 0)
    state = crammed_bert.to_state_dict(config, arrays)
    columns = state["encoder.layers.0.ffn.linear_out.weight"]
    assert columns.shape == (4, 2 * 3 * 2)
    weights = arrays["encoder.layers.0.feedforward.weights_out"]
    np.testing.assert_array_equal(columns[:, (1 * 3 + 2) * 2 + 1], weights[1, 2, 1])


def test_the_decoder_may_be_stored_alone_or_besides():
    config, state = golden()
    expected = crammed_bert.from_state_dict(config, state)
    alone = {name: array for name, array in state.items() if name != WORDS}
    alone["decoder.weight"] = state[WORDS]
    both = state | {"decoder.weight": state[WORDS].copy()}
    for other in (alone, both):
        for name, array in crammed_bert.from_state_dict(config, other).items():
            np.testing.assert_array_equal(array, expected[name])


def test_an_untied_decoder_is_an_error():
    config, state = golden()
    state["decoder.weight"] = state[WORDS] + 1
    with pytest.raises(CheckpointError, match=r"different numbers for 'decoder\.weight' and"):
        crammed_bert.from_state_dict(config, state)


def test_all_differences_are_listed():
    config, state = golden()
    del state["encoder.final_norm.bias"]
    state["encoder.extra"] = np.zeros(3)
    state["encoder.layers.0.attn.dense.weight"] = np.zeros((64, 3))
    state["encoder.layers.1.norm1.bias"] = np.zeros(64, complex)
    with pytest.raises(CheckpointError) as caught:
        crammed_bert.from_state_dict(config, state)
    for part in (
        "missing 'encoder.final_norm.bias'",
        "unexpected 'encoder.extra'",
        "'encoder.layers.0.attn.dense.weight' must be (64, 64), got (64, 3)",
        "'encoder.layers.1.norm1.bias' must be (64,), got (64,) of dtype complex128",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("factor", [1 / 3, np.nan, np.zeros(2), "0.25"])
def test_a_wrong_factor_is_an_error(factor):
    config, state = golden()
    with pytest.raises(CheckpointError, match=r"norm_factor' must be a factor of 0.25, got a fact"):
        crammed_bert.from_state_dict(config, state | {FACTOR: np.array(factor)})


def test_a_factor_may_be_rounded_or_absent():
    config, state = golden()
    crammed_bert.from_state_dict(config, state | {FACTOR: np.float16(0.251)})
    del state[FACTOR]
    crammed_bert.from_state_dict(config, state)


def test_the_encoder_is_read_from_any_model():
    config, state = golden("crammed_fff_cls")
    encoder = dataclasses.replace(config, classes=None)
    arrays = crammed_bert.from_state_dict(encoder, state, encoder_only=True)
    assert list(arrays) == list(encoder.shapes())
    with pytest.raises(CheckpointError, match=r"unexpected 'head\.bias'"):
        crammed_bert.from_state_dict(encoder, state)
    with pytest.raises(CheckpointError, match=r"unexpected 'decoder\.weight'"):
        crammed_bert.from_state_dict(config, state | {"decoder.weight": state[WORDS]})
    _, state = golden()
    with pytest.raises(CheckpointError, match=r"missing 'pooler\.dense\.weight'"):
        crammed_bert.from_state_dict(config, state)


def test_numbers_are_converted():
    config, state = golden()
    config = dataclasses.replace(config, dtype="float64")
    arrays = crammed_bert.from_state_dict(config, state | {WORDS: state[WORDS].astype(np.float16)})
    assert {array.dtype for array in arrays.values()} == {np.dtype("float64")}


def test_a_mapping_is_asked_for_one_array_at_a_time():
    config, state = golden()

    class Lazy(dict):
        """Lets no array be used once the next was asked for."""

        last = None

        def __getitem__(self, name):
            if self.last is not None:
                self.last[...] = np.nan
            self.last = super().__getitem__(name).copy()
            return self.last

    expected = crammed_bert.from_state_dict(config, state)
    for name, array in crammed_bert.from_state_dict(config, Lazy(state)).items():
        np.testing.assert_array_equal(array, expected[name])


def test_wrong_arguments_are_errors():
    config, state = golden()
    with pytest.raises(ArgumentTypeError, match="'config' must be a FastBertConfig, got FastFeed"):
        crammed_bert.from_state_dict(FastFeedForwardConfig(3, 3, 1), state)
    with pytest.raises(ArgumentTypeError, match="'state' must be a mapping"):
        crammed_bert.from_state_dict(config, [state])
    with pytest.raises(CheckpointError, match=r"do not fit .*missing 'encoder.embedding.words'"):
        crammed_bert.to_state_dict(config, {})
