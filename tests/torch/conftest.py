"""Tests of this folder run beside each other."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """PyTorch's idle threads wait actively, and so take the cores of the tests beside."""
    import torch

    torch.set_num_threads(1)
