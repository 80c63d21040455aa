"""The layer of the fastfeedforward package: gates and leaves, by our names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.checkpoints import fastfeedforward
from fffcpu.config import LeafFeedForwardConfig
from fffcpu.errors import ArgumentError, CheckpointError
from fffcpu.testing import golden

FILES = golden.files("leaf_fff")
KEYS = ("node_weights", "node_biases", "w1s", "b1s", "w2s", "b2s")
CONFIG = LeafFeedForwardConfig(4, 3, 2, 5, activation="relu")


def state_of(config: LeafFeedForwardConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    leaves = 2**config.depth
    inputs, width, outputs = config.input_dim, config.leaf_width, config.output_dim
    shapes = {
        "node_weights": (leaves - 1, inputs),
        "node_biases": (leaves - 1, 1),
        "w1s": (leaves, inputs, width),
        "b1s": (leaves, width),
        "w2s": (leaves, width, outputs),
        "b2s": (leaves, outputs),
    }
    arrays = {key: rng.standard_normal(shape) for key, shape in shapes.items()}
    return {key: array.astype(config.dtype) for key, array in arrays.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    with np.load(path) as file:
        state = {key: file[key] for key in (*KEYS, "depth")}
        activation, width = str(file["activation"]), int(file["leaf_width"])
    config = fastfeedforward.infer_config(state, activation=activation)
    assert config.depth == state["depth"]
    assert config.leaf_width == width
    assert config.activation == activation
    arrays = fastfeedforward.from_state_dict(config, state)
    assert {name: array.shape for name, array in arrays.items()} == config.shapes()
    back = fastfeedforward.to_state_dict(config, arrays)
    assert back.keys() == state.keys()
    assert back["depth"].dtype == np.int64
    for key, array in back.items():
        np.testing.assert_array_equal(array, state[key])


def test_golden_files_are_there() -> None:
    assert len(FILES) >= 4


@given(
    config=st.builds(
        LeafFeedForwardConfig,
        st.integers(1, 5),
        st.integers(1, 5),
        st.integers(0, 4),
        st.integers(1, 4),
        activation=st.sampled_from(["gelu", "relu"]),
        dtype=st.sampled_from(["float32", "float64"]),
    )
)
def test_round_trip(config: LeafFeedForwardConfig) -> None:
    state = state_of(config)
    assert fastfeedforward.infer_config(state, activation=config.activation) == config
    arrays = fastfeedforward.from_state_dict(config, state)
    np.testing.assert_array_equal(arrays["gate_bias"], state["node_biases"][:, 0])
    back = fastfeedforward.to_state_dict(config, arrays)
    assert back.pop("depth") == config.depth
    assert back.keys() == state.keys()
    for key, array in back.items():
        np.testing.assert_array_equal(array, state[key])


@pytest.mark.parametrize("absent", [(), ("node_weights",), ("node_weights", "node_biases")])
def test_depth_zero_has_no_gates(absent: tuple[str, ...]) -> None:
    config = LeafFeedForwardConfig(4, 3, 0, 5, activation="relu")
    state = {key: array for key, array in state_of(config).items() if key not in absent}
    assert fastfeedforward.infer_config(state) == config
    arrays = fastfeedforward.from_state_dict(config, state)
    assert arrays["gate_weights"].shape == (0, 4)
    assert arrays["gate_bias"].shape == (0,)
    back = fastfeedforward.to_state_dict(config, arrays)
    assert back["node_weights"].shape == (0, 4)
    assert back["node_biases"].shape == (0, 1)


def test_gates_must_be_there_at_other_depths() -> None:
    state = state_of(CONFIG)
    del state["node_weights"]
    with pytest.raises(CheckpointError, match="missing 'node_weights'"):
        fastfeedforward.from_state_dict(CONFIG, state)
    with pytest.raises(CheckpointError, match="missing 'node_weights'"):
        fastfeedforward.infer_config(state)


def test_usage_is_ignored() -> None:
    state = state_of(CONFIG) | {"node_usage": np.zeros(99), "leaf_usage": np.zeros(4)}
    assert fastfeedforward.infer_config(state) == CONFIG
    assert "node_usage" not in fastfeedforward.to_state_dict(
        CONFIG, fastfeedforward.from_state_dict(CONFIG, state)
    )


def test_depth_must_agree() -> None:
    state = state_of(CONFIG) | {"depth": np.array(3)}
    with pytest.raises(CheckpointError, match="'depth' must be 2, got 3"):
        fastfeedforward.infer_config(state)
    with pytest.raises(CheckpointError, match="'depth' must be 2, got 3"):
        fastfeedforward.from_state_dict(CONFIG, state)


def test_other_architectures_are_refused() -> None:
    state = state_of(CONFIG)
    with pytest.raises(CheckpointError, match="has 3 leaves, which is not a power of two"):
        fastfeedforward.infer_config({key: array[1:] for key, array in state.items()})
    with pytest.raises(CheckpointError, match=r"'node_biases' must be \(3, 1\), got \(3,\)"):
        fastfeedforward.infer_config(state | {"node_biases": state["node_biases"][:, 0]})
    with pytest.raises(CheckpointError, match=r"'w1s' must be \(K, I, H\), got \(7, 4\)"):
        fastfeedforward.infer_config({"w1s": np.zeros((7, 4)), "w2s": np.zeros((7, 4))})
    for other in (
        LeafFeedForwardConfig(5, 3, 2, 5),
        LeafFeedForwardConfig(4, 2, 2, 5),
        LeafFeedForwardConfig(4, 3, 1, 5),
        LeafFeedForwardConfig(4, 3, 2, 6),
    ):
        with pytest.raises(CheckpointError, match=r"must be .*, got"):
            fastfeedforward.from_state_dict(CONFIG, state_of(other))


def test_unknown_activation() -> None:
    with pytest.raises(ArgumentError, match="'activation'"):
        fastfeedforward.infer_config(state_of(CONFIG), activation="swish")


def test_tie_rules() -> None:
    assert fastfeedforward.TIE_RULE == ">="
    assert fastfeedforward.HARD_TRAINING_TIE_RULE == ">"
