"""What the columns of a table hold, and how they become the inputs of a layer."""

from __future__ import annotations

from fffcpu.columns.encoding import Column, Encoding

__all__ = ["Column", "Encoding"]
