"""The extra ``onnx``, and what runs its files."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
