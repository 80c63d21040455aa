"""Where things lie: the repository, its tests' golden files, and the package under test."""

from __future__ import annotations

from pathlib import Path

import fffcpu

__all__ = ["GOLDEN", "PACKAGE", "ROOT"]

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

GOLDEN = ROOT / "tests" / "golden"
"""Numbers that published implementations computed."""

PACKAGE = Path(fffcpu.__file__).parent
"""The package under test, which may be installed elsewhere."""
