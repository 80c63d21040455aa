"""The estimators of `fffcpu.sklearn` in sklearn-onnx, which converts whole pipelines.

sklearn-onnx asks for the shapes of an estimator's outputs, and then for its operators. The graph
is that of the estimator's predictor. It is built on its own, and moved to sklearn-onnx's container
under names that are free there.

Shapes: B rows, O outputs.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from fffcpu.errors import ArgumentError, MissingExtraError, describe
from fffcpu.inference.predictor import Predictor
from fffcpu.onnx.graph import OPERATOR_SETS, Graph
from fffcpu.onnx.predictors import Output, add_outputs, add_rows

__all__ = ["register_converters"]


def register_converters() -> None:
    """Make sklearn-onnx convert `FFFClassifier` and `FFFRegressor`, also within pipelines.

    Call it once per process, before ``skl2onnx.to_onnx``. The outputs are those that sklearn-onnx
    gives all estimators: ``label`` and ``probabilities``, and ``variable`` of regressors. Labels
    are texts or int64; probabilities and numbers have the type of the input, float32 or float64.

    Raises
    ------
    MissingExtraError
        If sklearn-onnx or scikit-learn is not installed.

    Examples
    --------
    >>> from fffcpu.onnx import register_converters
    >>> register_converters()
    """
    try:
        sklearn_onnx = importlib.import_module("skl2onnx")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"module '{error.name}' is not installed; install it with: pip install skl2onnx"
        ) from error
    from fffcpu.sklearn import FFFClassifier, FFFRegressor

    update = sklearn_onnx.update_registered_converter
    options = {
        "zipmap": [True, False, "columns"],
        "output_class_labels": [False, True],
        "nocl": [False],
    }
    update(FFFClassifier, "FffcpuClassifier", _set_types_of_classes, _convert, options=options)
    update(FFFRegressor, "FffcpuRegressor", _set_type_of_numbers, _convert)


def _set_types_of_classes(operator: Any) -> None:
    """Set types and shapes of labels and probabilities."""
    types = importlib.import_module("skl2onnx.common.data_types")
    predictor, rows = _predictor_of(operator), operator.inputs[0].get_first_dimension()
    schema, label, width = predictor.schema, types.Int64TensorType, len(predictor.schema.classes)
    if schema.labels.dtype.kind == "U" and schema.task == "classification":
        label = types.StringTensorType
    elif (schema.labels != schema.labels.astype(np.int64)).any():
        raise ArgumentError(
            "the classes of an estimator must be texts or integers, because sklearn-onnx has no "
            f"other labels, got {describe(schema.classes)}"
        )
    operator.outputs[0].set_type(label([rows, width] if schema.task == "multilabel" else [rows]))
    operator.outputs[1].type.shape = [rows, width]


def _set_type_of_numbers(operator: Any) -> None:
    """Set the shape of predicted numbers."""
    rows = operator.inputs[0].get_first_dimension()
    width = _predictor_of(operator).layer.config.output_dim
    operator.outputs[0].type.shape = [rows, width]


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the operators of an estimator."""
    if container.target_opset < OPERATOR_SETS[""]:
        raise ArgumentError(
            f"argument 'target_opset' must be at least {OPERATOR_SETS['']}, "
            f"got {container.target_opset}"
        )
    predictor, graph = _predictor_of(operator), Graph()
    dtype = np.dtype(predictor.layer.config.dtype if predictor.schema.encoding is None else "f8")
    inputs = [graph.input(variable.full_name, dtype, ()) for variable in operator.inputs]
    columns = [graph.cast(name, dtype) for name in inputs]
    x = graph.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]
    names = {name: name for name in inputs}
    outputs = add_outputs(graph, add_rows(graph, x, predictor), predictor)
    for output, variable in zip(outputs, operator.outputs, strict=True):
        names[_as_declared(graph, output, variable)] = variable.full_name
    _move(graph, names, scope, container)


def _predictor_of(operator: Any) -> Predictor:
    predictor: Predictor = operator.raw_operator.to_predictor()
    return predictor


def _as_declared(graph: Graph, output: Output, variable: Any) -> str:
    """Return an output as a value of the type and shape of a variable of sklearn-onnx."""
    types = importlib.import_module("skl2onnx.common.data_types")
    value = output.value
    if output.name == "label":
        texts = isinstance(variable.type, types.StringTensorType)
        return graph.add("Identity", value) if texts else graph.cast(value, np.int64)
    if output.name == "prediction":
        value = graph.add("Reshape", value, np.array([-1, variable.type.shape[1]]))
    is_double = isinstance(variable.type, types.DoubleTensorType)
    return graph.cast(value, np.float64 if is_double else np.float32)


def _move(graph: Graph, names: dict[str, str], scope: Any, container: Any) -> None:
    """Move constants and operators to a container; ``names`` has those of inputs and outputs."""
    helper = importlib.import_module("onnx.helper")
    for tensor in graph.constants:
        names[tensor.name] = scope.get_unique_variable_name(tensor.name)
        content = list(tensor.string_data) or tensor
        container.add_initializer(names[tensor.name], tensor.data_type, list(tensor.dims), content)
    for node in graph.nodes:
        (result,) = node.output
        names.setdefault(result, scope.get_unique_variable_name(result))
        container.add_node(
            node.op_type,
            [names[name] for name in node.input],
            [names[result]],
            op_domain=node.domain,
            op_version=OPERATOR_SETS[node.domain],
            name=scope.get_unique_operator_name(node.name),
            **{item.name: helper.get_attribute_value(item) for item in node.attribute},
        )
