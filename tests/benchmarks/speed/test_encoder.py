"""The benchmark of encoders' speed."""

from __future__ import annotations

import json

import pytest

from benchmarks.peers import layers as peers
from tests.support.processes import run_module


@pytest.mark.slow
def test_the_encoder_benchmark_checks_and_times_all_sections():
    arguments = ("--quick", "--rounds", "1", "--seconds", "0", "--count", "5", "--json")
    done = run_module("benchmarks.speed.encoder", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["races"]) == 6
    assert found["alone"]["masked positions"] >= 5
    assert found["alone"]["movement of a position's logits, largest"] < 1e-5
    assert any(note.startswith("fffcpu int8, 4 x 12: mean cosine") for note in found["notes"])
    if not peers.absent(peers.TorchMasked):
        assert any("4 of 4 sequences agree" in note for note in found["notes"])
