"""How estimators are tested without the compiler."""

from __future__ import annotations

import pytest

from fffcpu import kernels
from fffcpu.kernels import jit
from fffcpu.kernels.backends import vectorized


@pytest.fixture(autouse=True)
def whole_batches(monkeypatch):
    """Use matrix products without the compiler: row by row, plain Python takes minutes."""
    if not jit.JIT:
        plain = kernels.selection()._replace(few=vectorized, many=vectorized)
        monkeypatch.setattr(kernels, "selection", lambda: plain)
