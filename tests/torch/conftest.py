"""Tests of this folder run beside each other, with the same numbers each time."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    """PyTorch's idle threads wait actively, and so take the cores of the tests beside."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
