"""Numbers that the published PyTorch layers computed, which every backend must reproduce.

The name of a file gives its sizes. A file whose name ends in ``_visited`` is cut from a larger one:
weights and gradients of nodes that no row visits are 0. docs/contributing.md describes the arrays.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER", "files"]

FOLDER = Path(__file__).parent
"""Folder of the files."""


def files(kind: str) -> list[Path]:
    """Return the files of one kind in the order of their names.

    Parameters
    ----------
    kind : str
        Start of the file names: ``path_fff``, ``bmm_fff`` or ``leaf_fff``.
    """
    return sorted(FOLDER.glob(f"{kind}_*.npz"))
