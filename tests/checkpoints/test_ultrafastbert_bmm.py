"""The inference benchmark layer of UltraFastBERT: one tree, no bias, another rule for ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.checkpoints import ultrafastbert_bmm
from fffcpu.config import FastFeedForwardConfig
from fffcpu.errors import CheckpointError
from fffcpu.testing import golden

FILES = golden.files("bmm_fff")
CONFIG = FastFeedForwardConfig(4, 3, 2, bias=False)


def state_of(config: FastFeedForwardConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    nodes = 2 ** (config.depth + 1) - 1
    return {
        "w1s": rng.standard_normal((nodes, config.input_dim)).astype(config.dtype),
        "w2s": rng.standard_normal((nodes, config.output_dim)).astype(config.dtype),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    with np.load(path) as file:
        state = {key: file[key] for key in ("w1s", "w2s")}
        depth = int(file["depth"])
    config = ultrafastbert_bmm.infer_config(state)
    assert (config.depth, config.trees, config.bias) == (depth, 1, False)
    assert config.dtype == "float32"
    arrays = ultrafastbert_bmm.from_state_dict(config, state)
    assert {name: array.shape for name, array in arrays.items()} == config.shapes()
    np.testing.assert_array_equal(arrays["weights_in"][0], state["w1s"])
    np.testing.assert_array_equal(arrays["weights_out"][0], state["w2s"])
    back = ultrafastbert_bmm.to_state_dict(config, arrays)
    assert list(back) == ["w1s", "w2s"]
    for key in back:
        np.testing.assert_array_equal(back[key], state[key])


def test_golden_files_are_there() -> None:
    assert len(FILES) >= 2


@given(
    config=st.builds(
        FastFeedForwardConfig,
        st.integers(1, 5),
        st.integers(1, 5),
        st.integers(0, 5),
        bias=st.just(False),
        dtype=st.sampled_from(["float32", "float64"]),
    )
)
def test_round_trip(config: FastFeedForwardConfig) -> None:
    state = state_of(config)
    assert ultrafastbert_bmm.infer_config(state) == config
    arrays = ultrafastbert_bmm.from_state_dict(config, state)
    for key, array in ultrafastbert_bmm.to_state_dict(config, arrays).items():
        np.testing.assert_array_equal(array, state[key])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": True}, "'bias' must be False, got True"),
        ({"trees": 3}, "'trees' must be 1, got 3"),
        ({"activation": "relu"}, "'activation' must be 'gelu', got 'relu'"),
    ],
)
def test_layers_that_the_format_cannot_hold(change: dict, words: str) -> None:
    config = FastFeedForwardConfig(**(CONFIG.to_dict() | change))
    arrays = {name: np.zeros(shape, np.float32) for name, shape in config.shapes().items()}
    with pytest.raises(CheckpointError, match=words):
        ultrafastbert_bmm.to_state_dict(config, arrays)
    with pytest.raises(CheckpointError, match=words):
        ultrafastbert_bmm.from_state_dict(config, state_of(CONFIG))


def test_other_architectures_are_refused() -> None:
    state = state_of(CONFIG)
    with pytest.raises(CheckpointError, match="w1s' of the state dict has 6 rows: no complete"):
        ultrafastbert_bmm.infer_config({key: array[1:] for key, array in state.items()})
    with pytest.raises(CheckpointError, match=r"'w2s' must be \(7, 3\), got \(6, 3\)"):
        ultrafastbert_bmm.infer_config(state | {"w2s": state["w2s"][1:]})
    with pytest.raises(CheckpointError, match="missing 'w2s'; unexpected 'linear'"):
        ultrafastbert_bmm.infer_config({"w1s": state["w1s"], "linear": 0})
    leaf = {"w1s": np.zeros((4, 3, 2)), "w2s": np.zeros((4, 2, 3)), "node_weights": 0}
    with pytest.raises(CheckpointError, match=r"unexpected 'node_weights'.*'w1s' must be"):
        ultrafastbert_bmm.infer_config(leaf)
    with pytest.raises(CheckpointError, match=r"'w1s' must be \(15, 4\), got \(7, 4\); 'w2s'"):
        ultrafastbert_bmm.from_state_dict(FastFeedForwardConfig(4, 3, 3, bias=False), state)


def test_tie_rule() -> None:
    assert ultrafastbert_bmm.TIE_RULE == ">="
