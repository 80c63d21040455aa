"""A graph of ONNX while it is built: inputs, operators, constants and outputs, all by name.

Operators are those of ONNX's own sets, of fixed versions. An operator that was added before, with
the same inputs, is not added again: its result is used. So are small constants::

    graph = Graph()
    x = graph.input("x", np.float32, ("rows", 4))
    y = graph.add("Relu", graph.add("Add", x, np.ones(4, np.float32)))
    graph.output("y", y, np.float32, ("rows", 4))
    graph.model()                                       an onnx.ModelProto
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu import __version__
from fffcpu.errors import ArgumentError, require_extra

__all__ = ["IR_VERSION", "ML", "MODEL_BYTES", "OPERATOR_SETS", "Graph"]

Array = NDArray[Any]
Operand: TypeAlias = "str | Array"
"""The name of a value, or a constant."""

ML = "ai.onnx.ml"
"""The set of operators for tables, of the same standard."""

OPERATOR_SETS: Mapping[str, int] = {"": 20, ML: 3}
"""The sets of operators and their versions. 20 is the first with GELU."""

IR_VERSION = 10
"""Version of the file format. Every onnxruntime with these operators reads it."""

MODEL_BYTES = (1 << 31) - (1 << 20)
"""Most bytes of constants in a model: a message of protobuf ends at 2 GiB."""

_SHARED = 64
"""Most elements of a constant that is looked for among those before."""


class Graph:
    """A graph to which operators are added.

    Raises
    ------
    MissingExtraError
        If the extra ``onnx`` is not installed.
    """

    def __init__(self) -> None:
        self._onnx = require_extra("onnx", "onnx")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._names: set[str] = set()
        self._known: dict[tuple[Any, ...], str] = {}
        self._prefix = ""
        self._bytes = 0

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> str:
        """Add an input; lengths with a name are dynamic. All inputs come before the operators."""
        self._names.add(name)
        self._inputs.append(self._described(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: DTypeLike, shape: Sequence[int | str]) -> None:
        """Make a value an output, under a name without digits that no other value has."""
        self._append("Identity", [value], name, "", {})
        self._outputs.append(self._described(name, dtype, shape))

    def add(self, operator: str, *operands: Operand, domain: str = "", **attributes: Any) -> str:
        """Add an operator with one result, and return the name of the result.

        Parameters
        ----------
        operator : str
            Its name in ONNX.
        *operands : str or array
            Names of values, or constants.
        domain : str
            Its set of operators.
        **attributes : object
            Its attributes.
        """
        names = [
            operand if isinstance(operand, str) else self.constant(operand) for operand in operands
        ]
        key = (operator, domain, *names, repr(sorted(attributes.items())))
        if key not in self._known:
            result = self._new(operator.lower())
            self._append(operator, names, result, domain, attributes)
            self._known[key] = result
        return self._known[key]

    def cast(self, value: str, dtype: DTypeLike) -> str:
        """Convert a value to another type."""
        return self.add("Cast", value, to=self.element_type(dtype))

    def constant(self, array: Array, name: str = "constant", *, bfloat16: bool = False) -> str:
        """Add a constant, and return its name.

        Parameters
        ----------
        array : array
            Numbers, truth values or texts.
        name : str
            The beginning of its name.
        bfloat16 : bool
            Whether the array, of uint16, has the bits of bfloat16 numbers.

        Raises
        ------
        ArgumentError
            If the constants take more than `MODEL_BYTES`.
        """
        texts = array.dtype.kind == "U"
        content = repr(array.tolist()) if array.size <= _SHARED else ""
        key = ("", array.dtype.str, array.shape, bfloat16, content)
        if not content or key not in self._known:
            self._take(0 if texts else array.nbytes)
            chosen = self._known[key] = self._new(self._prefix + name)
            self.constants.append(self._tensor(chosen, array, texts, bfloat16))
        return self._known[key]

    @contextlib.contextmanager
    def within(self, module: str) -> Iterator[None]:
        """Context in which the names of constants begin with that of a module."""
        before = self._prefix
        self._prefix = f"{before}{module}."
        try:
            yield
        finally:
            self._prefix = before

    def model(self, metadata: Mapping[str, str] | None = None, doc: str = "") -> Any:
        """Return the graph as an ``onnx.ModelProto``.

        Parameters
        ----------
        metadata : mapping of str to str, optional
            Further notes on the model.
        doc : str
            Description for people.
        """
        helper = self._onnx.helper
        graph = helper.make_graph(
            self.nodes, "fffcpu", self._inputs, self._outputs, self.constants, doc_string=doc
        )
        used = {node.domain for node in self.nodes} | {""}
        model = helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid(domain, version)
                for domain, version in OPERATOR_SETS.items()
                if domain in used
            ],
            ir_version=IR_VERSION,
            producer_name="fffcpu",
            producer_version=__version__,
            doc_string=doc,
        )
        helper.set_model_props(model, dict(metadata or {}))
        return model

    def _append(
        self, operator: str, names: list[str], result: str, domain: str, attributes: Any
    ) -> None:
        # onnxruntime 1.18 makes names of new nodes from those of the nodes that it replaces.
        node = self._onnx.helper.make_node(
            operator, names, [result], name=result, domain=domain, **attributes
        )
        self.nodes.append(node)

    def _tensor(self, name: str, array: Array, texts: bool, bfloat16: bool) -> Any:
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        if texts:
            content = [text.encode() for text in array.reshape(-1).tolist()]
            return helper.make_tensor(name, kinds.STRING, array.shape, content)
        kind = kinds.BFLOAT16 if bfloat16 else self.element_type(array.dtype)
        return helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True)

    def _described(self, name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> Any:
        kind = self.element_type(dtype)
        return self._onnx.helper.make_tensor_value_info(name, kind, list(shape))

    def element_type(self, dtype: DTypeLike) -> int:
        """Return the number that ONNX has for a type; NumPy's types of texts are one."""
        dtype = np.dtype(dtype)
        if dtype.kind in "UO":
            return int(self._onnx.TensorProto.STRING)
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(dtype))

    def _new(self, name: str) -> str:
        """Return a name that begins with this one and ends with a number, and that is new."""
        number = len(self.nodes)
        while f"{name}_{number}" in self._names:
            number += 1
        self._names.add(f"{name}_{number}")
        return f"{name}_{number}"

    def _take(self, nbytes: int) -> None:
        self._bytes += nbytes
        if self._bytes > MODEL_BYTES:
            raise ArgumentError(
                "argument 'model' must have weights of less than 2 GiB, because an ONNX file "
                f"cannot hold more, got at least {self._bytes:,} bytes; quantize it to bfloat16 "
                "or int8 first"
            )
