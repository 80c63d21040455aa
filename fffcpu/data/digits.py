"""A small table of real data: handwritten digits, 1797 images of 8x8 pixels.

The table is a file next to this module (``digits.npz``), so nothing is downloaded.
``DIGITS-LICENSE.txt`` gives its source and its licence.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_digits"]


def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load the handwritten digits.

    The rows keep the order of their source, in which neighbours seem to have the same writer. So
    the last rows, as a test set, are a harder test than random rows.

    Returns
    -------
    images : array of float32, shape (1797, 64)
        One image per row, its 8 lines of 8 pixels one after another. 0 is paper, 1 is ink, in steps
        of 1/16.
    labels : array of int64, shape (1797,)
        The digit on each image, 0 to 9.

    Notes
    -----
    The test set of "Optical recognition of handwritten digits" by E. Alpaydin and C. Kaynak. Each
    pixel counts the inked dots of a 4x4 block of a 32x32 scan.
    """
    with (files("fffcpu.data") / "digits.npz").open("rb") as file, np.load(file) as table:
        images, labels = table["images"], table["labels"]
    return images.astype(np.float32) / np.float32(16), labels.astype(np.int64)
