"""The digits that the package carries are the ones it says they are."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import numpy as np

from fffcpu.data import load_digits

# Of the pixels and the labels, a byte each; computed from the table that scikit-learn ships.
PIXELS_SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
LABELS_SHA256 = "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"


def test_shapes_and_dtypes():
    images, labels = load_digits()
    assert images.shape == (1797, 64)
    assert images.dtype == np.float32
    assert labels.shape == (1797,)
    assert labels.dtype == np.int64


def test_images_run_from_paper_to_ink():
    images, _ = load_digits()
    assert images.min() == 0
    assert images.max() == 1
    np.testing.assert_array_equal(images * 16, np.rint(images * 16))


def test_class_counts():
    _, labels = load_digits()
    counts = np.bincount(labels).tolist()
    assert counts == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_checksums():
    images, labels = load_digits()
    pixels = (images * 16).astype(np.uint8)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == PIXELS_SHA256
    assert hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest() == LABELS_SHA256


def test_first_image_is_a_nought():
    images, labels = load_digits()
    drawing = (images[0].reshape(8, 8) * 16).astype(int).tolist()
    assert labels[0] == 0
    assert drawing == [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
        [0, 4, 12, 0, 0, 8, 8, 0],
        [0, 5, 8, 0, 0, 9, 8, 0],
        [0, 4, 11, 0, 1, 12, 7, 0],
        [0, 2, 14, 5, 10, 12, 0, 0],
        [0, 0, 6, 13, 10, 0, 0, 0],
    ]


def test_last_image_is_an_eight():
    images, labels = load_digits()
    assert labels[-1] == 8
    assert (images[-1, 32:40] * 16).tolist() == [0, 0, 12, 15, 15, 12, 0, 0]


def test_each_call_returns_arrays_of_its_own():
    images, labels = load_digits()
    images[:] = -1
    labels[:] = -1
    again, labels_again = load_digits()
    assert again.min() == 0
    assert labels_again.min() == 0


def test_licence_lies_beside_the_data():
    text = (files("fffcpu.data") / "DIGITS-LICENSE.txt").read_text(encoding="utf-8")
    assert "BSD 3-Clause License" in text
    assert "E. Alpaydin and C. Kaynak" in text
