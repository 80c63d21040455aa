"""Blocks on a cluster: in order, few at a time, and again if they are lost."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.dask.streaming import AHEAD, stream

pytestmark = pytest.mark.slow

LAYER = FastFeedForward(4, 3, 3, rng=0)


class Block(NamedTuple):
    inputs: np.ndarray
    number: int


def blocks(count, read):
    rng = np.random.default_rng(0)
    for number in range(count):
        read.append(number)
        yield Block(rng.standard_normal((number % 5, 4)), number)


def test_blocks_come_in_order_and_few_are_read_ahead(client):
    read = []
    for number, (block, values) in enumerate(stream(client, LAYER, blocks(40, read))):
        assert block.number == number
        np.testing.assert_array_equal(values, LAYER(block.inputs))
        assert len(read) <= number + 2 * AHEAD
    assert len(read) == 40


def test_blocks_that_are_lost_are_sent_again(client):
    pids = client.run(os.getpid)
    found = []
    for block, values in stream(client, LAYER, blocks(60, [])):
        if block.number == 10:
            os.kill(max(pids.values()), signal.SIGKILL)
        np.testing.assert_array_equal(values, LAYER(block.inputs))
        found.append(block.number)
    assert found == list(range(60))


def test_an_error_of_a_block_is_raised_here(client):
    wrong = [Block(np.zeros((2, 9)), 0)]
    with pytest.raises(ValueError, match="9"):
        list(stream(client, LAYER, wrong))
