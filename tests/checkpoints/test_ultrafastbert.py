"""The training layer of UltraFastBERT: the numbers of a published state dict, by our names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.checkpoints import ultrafastbert
from fffcpu.config import FastFeedForwardConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError
from fffcpu.testing import golden
from tests.support.paths import GOLDEN

FILES = [*golden.files("path_fff"), *sorted(GOLDEN.glob("path_fff_*.npz"))]
KEYS = ("linear_in.weight", "linear_in.bias", "linear_out.weight")


def state_of(config: FastFeedForwardConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Make a state dict in the published layout."""
    rng = np.random.default_rng(seed)
    rows = config.trees * (2 ** (config.depth + 1) - 1)
    state = {
        "linear_in.weight": rng.standard_normal((rows, config.input_dim)),
        "linear_in.bias": rng.standard_normal(rows),
        "linear_out.weight": rng.standard_normal((config.output_dim, rows)),
    }
    if not config.bias:
        del state["linear_in.bias"]
    return {name: array.astype(config.dtype) for name, array in state.items()}


CONFIGS = st.builds(
    FastFeedForwardConfig,
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(1, 4),
    bias=st.booleans(),
    activation=st.sampled_from(["gelu", "relu"]),
    dtype=st.sampled_from(["float32", "float64"]),
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    with np.load(path) as file:
        state = {key: file[key.replace(".", "_")] for key in KEYS}
        depth, trees, x, y = int(file["depth"]), int(file["trees"]), file["x"], file["y"]
    config = ultrafastbert.infer_config(state, depth=depth)
    assert (config.depth, config.trees, config.dtype) == (depth, trees, "float64")
    assert (config.input_dim, config.output_dim) == (x.shape[1], y.shape[1])
    arrays = ultrafastbert.from_state_dict(config, state)
    assert {name: array.shape for name, array in arrays.items()} == config.shapes()
    back = ultrafastbert.to_state_dict(config, arrays)
    assert list(back) == list(KEYS)
    for key in KEYS:
        np.testing.assert_array_equal(back[key], state[key])


def test_golden_files_are_there() -> None:
    assert len(FILES) >= 7


def test_nodes_are_tree_major() -> None:
    config = FastFeedForwardConfig(3, 2, 1, 2)
    state = state_of(config)
    arrays = ultrafastbert.from_state_dict(config, state)
    for t, n in np.ndindex(2, 3):
        row = t * 3 + n
        np.testing.assert_array_equal(arrays["weights_in"][t, n], state["linear_in.weight"][row])
        assert arrays["bias_in"][t, n] == state["linear_in.bias"][row]
        column = state["linear_out.weight"][:, row]
        np.testing.assert_array_equal(arrays["weights_out"][t, n], column)


@given(config=CONFIGS, seed=st.integers(0, 9))
def test_round_trip(config: FastFeedForwardConfig, seed: int) -> None:
    state = state_of(config, seed)
    for known in ({"depth": config.depth}, {"trees": config.trees}):
        inferred = ultrafastbert.infer_config(state, activation=config.activation, **known)
        assert inferred == config
    back = ultrafastbert.to_state_dict(config, ultrafastbert.from_state_dict(config, state))
    assert back.keys() == state.keys()
    for key, array in back.items():
        assert array.dtype == config.dtype
        np.testing.assert_array_equal(array, state[key])


def test_memory_mapped_state(tmp_path: Path) -> None:
    config = FastFeedForwardConfig(4, 3, 2)
    state = state_of(config)
    mapped = {}
    for key, array in state.items():
        np.save(tmp_path / f"{key}.npy", array)
        mapped[key] = np.load(tmp_path / f"{key}.npy", mmap_mode="r")
    arrays = ultrafastbert.from_state_dict(config, mapped)
    for name, array in ultrafastbert.from_state_dict(config, state).items():
        np.testing.assert_array_equal(arrays[name], array)
        assert type(arrays[name]) is np.ndarray


def test_dtype_is_the_states_or_as_told() -> None:
    state = state_of(FastFeedForwardConfig(4, 3, 2, dtype="float64"))
    assert ultrafastbert.infer_config(state, trees=1).dtype == "float64"
    assert ultrafastbert.infer_config(state, trees=1, dtype=np.float32).dtype == "float32"
    halves = {key: array.astype(np.float16) for key, array in state.items()}
    assert ultrafastbert.infer_config(halves, trees=1).dtype == "float32"


def test_depth_or_trees_must_be_given() -> None:
    state = state_of(FastFeedForwardConfig(4, 3, 3, 7))
    with pytest.raises(ArgumentError) as caught:
        ultrafastbert.infer_config(state)
    assert str(caught.value) == (
        "argument 'depth' or 'trees' must be given, since 105 nodes may be any of "
        "depth=0 (trees=105), depth=1 (trees=35), depth=2 (trees=15), depth=3 (trees=7)"
    )
    assert ultrafastbert.infer_config(state, depth=2).trees == 15
    assert ultrafastbert.infer_config(state, trees=15, depth=2).trees == 15


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"depth": 4}, "are not trees of depth 4, 31 nodes each"),
        ({"trees": 8}, "are not 8 equal trees"),
        ({"trees": 21}, "are not 21 equal trees"),
        ({"depth": 2, "trees": 7}, "are not 7 trees of depth 2, 7 nodes each"),
    ],
)
def test_nodes_that_make_no_such_trees(known: dict, words: str) -> None:
    state = state_of(FastFeedForwardConfig(4, 3, 3, 7))
    with pytest.raises(CheckpointError, match=f"the 105 nodes of 'linear_in.weight' {words}"):
        ultrafastbert.infer_config(state, **known)


@pytest.mark.parametrize("known", [{"depth": -1}, {"depth": 31}, {"trees": 0}])
def test_impossible_arguments(known: dict) -> None:
    with pytest.raises(ArgumentError, match=f"argument '{next(iter(known))}'"):
        ultrafastbert.infer_config(state_of(FastFeedForwardConfig(4, 3, 1)), **known)


def test_other_architectures_are_refused() -> None:
    config = FastFeedForwardConfig(4, 3, 2, 2)
    for other in (
        FastFeedForwardConfig(5, 3, 2, 2),
        FastFeedForwardConfig(4, 2, 2, 2),
        FastFeedForwardConfig(4, 3, 3, 2),
        FastFeedForwardConfig(4, 3, 2, 1),
    ):
        with pytest.raises(CheckpointError, match=r"must be .*, got"):
            ultrafastbert.from_state_dict(config, state_of(other))
    with pytest.raises(CheckpointError, match=r"missing 'linear_in\.bias'"):
        ultrafastbert.from_state_dict(
            config, state_of(FastFeedForwardConfig(4, 3, 2, 2, bias=False))
        )
    with pytest.raises(CheckpointError, match=r"unexpected 'linear_in\.bias'"):
        ultrafastbert.from_state_dict(
            FastFeedForwardConfig(4, 3, 2, 2, bias=False), state_of(config)
        )
    with pytest.raises(CheckpointError, match=r"missing 'linear_in\.weight'.*unexpected 'w1s'"):
        ultrafastbert.infer_config({"w1s": np.zeros((7, 4))}, depth=2)
    broken = state_of(config)
    broken["linear_out.weight"] = broken["linear_out.weight"][:, 1:]
    with pytest.raises(CheckpointError, match=r"'linear_out\.weight' must be \(3, 14\)"):
        ultrafastbert.infer_config(broken, depth=2)
    with pytest.raises(ArgumentTypeError, match="'config'"):
        ultrafastbert.from_state_dict(None, state_of(config))  # type: ignore[arg-type]


def test_tie_rule() -> None:
    assert ultrafastbert.TIE_RULE == ">"
