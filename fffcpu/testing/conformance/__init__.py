"""The tests that every backend module must pass. `fffcpu.testing.plugin` runs them."""

from __future__ import annotations

__all__: list[str] = []
