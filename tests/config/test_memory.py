"""Whether a config fits into memory, and the largest size that does."""

from __future__ import annotations

import pytest

from fffcpu.config import DenseFeedForwardConfig, FastFeedForwardConfig, LeafFeedForwardConfig
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.config.memory import check_fits
from fffcpu.errors import NotEnoughMemoryError
from fffcpu.system import memory
from fffcpu.system.memory import Available

MOST = 1 << 30


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch):
    """Let 1 GiB be available."""
    monkeypatch.setattr(memory, "available_memory", lambda: Available(MOST, "there is only"))


def bert(**sizes):
    values = {"layers": 2, "feedforward_size": 1, "depth": 3, "vocabulary": 1000}
    given = values | sizes
    return FastBertConfig(
        given["vocabulary"],
        768,
        given["layers"],
        12,
        feedforward=sizes.get("feedforward", "fff"),
        feedforward_size=given["feedforward_size"],
        depth=given["depth"],
    )


CASES = {
    "depth": lambda depth: FastFeedForwardConfig(8, 4, depth, 2),
    "leaf depth": lambda depth: LeafFeedForwardConfig(8, 4, depth, 16),
    "width": lambda width: DenseFeedForwardConfig(64, 64, width),
    "depth of an encoder": lambda depth: bert(depth=depth),
    "feedforward_size": lambda size: bert(feedforward="ff", feedforward_size=size, depth=0),
    "layers": lambda layers: bert(layers=layers, depth=0, feedforward_size=1),
    "vocabulary": lambda vocabulary: bert(vocabulary=vocabulary, depth=0, feedforward_size=1),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_largest_size_that_fits(name):
    make = CASES[name]
    too_large = {"depth": 29, "leaf depth": 29, "depth of an encoder": 28}.get(name, 9999)
    if name in ("width", "feedforward_size", "vocabulary"):
        too_large = 1 << 32
    with pytest.raises(
        NotEnoughMemoryError, match=r"there is only 1.07 GB; the .* fit.* "
    ) as caught:
        check_fits(make(too_large))
    most = int(str(caught.value).split()[-1])
    assert make(most).nbytes <= MOST < make(most + 1).nbytes
    check_fits(make(most))


def test_need_may_be_more_than_the_parameters():
    config = FastFeedForwardConfig(64, 64, 15)  # 34 MB
    check_fits(config)
    with pytest.raises(NotEnoughMemoryError) as caught:
        check_fits(config, lambda other: 64 * other.nbytes, "training ")
    assert str(caught.value) == (
        "training a FastFeedForward of depth 15, trees 1 needs 2.16 GB, but there is only 1.07 GB; "
        "the deepest tree that fits has depth 13"
    )


def test_a_layer_that_is_too_wide_for_any_depth_says_so():
    with pytest.raises(NotEnoughMemoryError, match="no smaller depth or width alone would fit"):
        check_fits(FastFeedForwardConfig(1 << 40, 1, 0))
