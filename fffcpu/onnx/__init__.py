"""Models as ONNX files, for programs without fffcpu or Python (extra ``onnx``).

`export` writes layers, predictors and FastBERTs with standard operators alone. What runs such a
file, such as onnxruntime, needs nothing of fffcpu. docs/onnx.md lists inputs and outputs.

::

    exporting     files and models: which builder takes which kind
    predictors    columns to inputs, scores to labels
    models        FastBERT
    layers        the layers, with the depth of trees unrolled
    graph         a graph while it is built
    converters    the estimators in pipelines of scikit-learn, for sklearn-onnx
"""

from __future__ import annotations

from fffcpu.onnx.converters import register_converters
from fffcpu.onnx.exporting import export, to_model

__all__ = ["export", "register_converters", "to_model"]
