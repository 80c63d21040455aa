"""The benchmarks that can be run, found by their files."""

from __future__ import annotations

from tests.support.paths import ROOT

__all__ = ["RUNNABLE"]

RUNNABLE = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in sorted((ROOT / "benchmarks").rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]
"""Modules and packages for ``python -m``."""
