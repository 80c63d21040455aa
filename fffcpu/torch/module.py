"""What the modules share: parameters, their layer in the same memory, devices and types, files."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy import empty
from torch import Tensor, from_numpy, is_grad_enabled
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from fffcpu.config import LayerConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe
from fffcpu.layers import Layer
from fffcpu.torch.operators import (
    as_array,
    dispatch_modes,
    is_transformed,
    runs_kernels,
    share,
    tracing_state,
)

__all__ = ["FeedForward", "config_dtype"]

data_ptr = Tensor.data_ptr


class _Bound(NamedTuple):
    """A layer on the memory of a module's parameters."""

    addresses: list[int]
    """Where the parameters lay."""
    layer: Layer[Any]
    shape: tuple[int, int]
    """Shape of one row, which is passed to the kernel at once."""
    output_shape: tuple[int, int]
    """Shape of its output."""
    dtype: np.dtype[Any]
    infer: Callable[..., None]
    """Kernel for few rows, which `kernels.choose` would return."""
    arguments: tuple[Any, ...]
    """What it takes after output and rows."""


class FeedForward(torch.nn.Module):
    """Base of the modules: a config, and parameters with the names and shapes of a layer's."""

    layer_type: ClassVar[type[Layer[Any]]]
    """The layer that a module is made of."""
    published: ClassVar[ModuleType]
    """The module of `fffcpu.checkpoints` for the published layout."""

    def _start(self, config: LayerConfig, device: Any, dtype: Any) -> None:
        """Set up a module with initial values; constructors end with this call."""
        dtype = torch.get_default_dtype() if dtype is None else dtype
        shapes = config.shapes().items()
        self._set_up(
            config,
            {name: torch.empty(shape, device=device, dtype=dtype) for name, shape in shapes},
        )
        self.reset_parameters()

    def _set_up(self, config: Any, tensors: Mapping[str, Tensor]) -> None:
        self._config = config
        self._bound: _Bound | None = None
        for name, tensor in tensors.items():
            self.register_parameter(name, torch.nn.Parameter(tensor))

    def reset_parameters(self) -> None:
        """Draw the initial values that the class describes from PyTorch's generator."""
        for name, bound in self._bounds().items():
            torch.nn.init.uniform_(getattr(self, name), -bound, bound)

    def _bounds(self) -> dict[str, float]:
        """Return the largest initial value of each parameter."""
        raise NotImplementedError

    @property
    def config(self) -> Any:
        """Config of the layer that `to_layer` returns."""
        first = next(iter(self.parameters()))
        return dataclasses.replace(self._config, dtype=config_dtype(first.dtype))

    def extra_repr(self) -> str:
        """Return the fields of the config."""
        fields = self.config.to_dict().items()
        return ", ".join(f"{name}={value!r}" for name, value in fields)

    def __getstate__(self) -> dict[str, Any]:
        # A copy, in this process or another, has memory of its own.
        return {**self.__dict__, "_bound": None}

    # --- Layers and files -------------------------------------------------------------------------

    def _arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the parameters as arrays of the config's dtype, in their memory where possible."""
        dtype = getattr(torch, self.config.dtype)
        tensors = {name: getattr(self, name) for name in self._config.shapes()}
        return {name: as_array(tensor.to("cpu", dtype)) for name, tensor in tensors.items()}

    def to_layer(self) -> Any:
        """Return the layer, which needs no PyTorch to run, to be saved and to be served.

        Returns
        -------
        fffcpu.FastFeedForward or fffcpu.LeafFeedForward
            The layer, in float64 if the parameters are, else in float32. If they are contiguous, on
            the CPU and of that dtype, it has their memory, so that it changes with them; its method
            ``copy`` makes it independent.
        """
        return share(self.layer_type, self.config, self._arrays())

    @classmethod
    def _from_layer(cls, layer: Any) -> Self:
        """Make a module on the memory of a layer's parameters."""
        if type(layer) is not cls.layer_type:
            expected = f"argument 'layer' must be a fffcpu.{cls.layer_type.__name__}"
            raise ArgumentTypeError(f"{expected}, got {describe(layer)}")
        module = cls.__new__(cls)
        torch.nn.Module.__init__(module)
        module._set_up(
            layer.config,
            {name: from_numpy(_writable(array)) for name, array in layer.params.items()},
        )
        return module

    def published_state_dict(self) -> dict[str, Tensor]:
        """Return a state dict with the names and shapes of the published layout.

        Returns
        -------
        dict of str to tensor
            Copies on the CPU; the module of `fffcpu.checkpoints` for the layout describes them.

        Raises
        ------
        CheckpointError
            If the layout cannot hold the layer, such as one with two-sided nodes.
        """
        state = self.published.to_state_dict(self.config, self._arrays())
        return {name: from_numpy(np.asarray(array)) for name, array in state.items()}

    def load_published_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the parameters of a state dict in the published layout.

        Parameters
        ----------
        state : mapping of str to tensor or array
            State dict of the published module, on any device.

        Raises
        ------
        CheckpointError
            If it is not the state dict of such a layer; the message lists all differences.
        ArgumentTypeError
            If ``state`` is not a mapping.
        """
        if isinstance(state, Mapping):
            state = {name: _published_array(value) for name, value in state.items()}
        arrays = self.published.from_state_dict(self.config, state)
        self.load_state_dict({name: from_numpy(array) for name, array in arrays.items()})

    # --- Calls ------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer.

        Parameters
        ----------
        x : tensor of shape (..., I)
            Real numbers of any dtype, on the parameters' device.

        Returns
        -------
        tensor of shape (..., O)
            The output, in the parameters' dtype.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If ``x`` is not such a tensor.
        """
        # PyTorch's dispatcher takes longer than a row, so kernels are called without it where
        # nothing must see them. Names are local, and few questions are asked, for the same reason.
        parameters = self._parameters.values()
        if (
            type(x) is not Tensor
            or is_compiling()
            or dispatch_modes()
            or tracing_state()
            or forward_ad._current_level >= 0
            or (is_grad_enabled() and needs_gradients(x, *parameters))
        ):
            return self._run_operators(x)
        try:
            rows = x.numpy()
            addresses = list(map(data_ptr, parameters))
        except (RuntimeError, TypeError):  # not in plain memory that NumPy can read
            return self._run_operators(x)
        bound = self._bound
        if bound is None or bound[0] != addresses:
            bound = self._bind(addresses)
            if bound is None:
                return self._run_operators(x)
        _, layer, shape, output_shape, dtype, infer, arguments = bound
        if rows.shape == shape and rows.dtype is dtype and rows.flags.carray:
            y = empty(output_shape, dtype)
            infer(y, rows, *arguments)
        else:
            y = layer(rows)
        return from_numpy(y)

    def _run_operators(self, x: Any) -> Tensor:
        """Return the output by operators that PyTorch sees."""
        rows = self._rows(x)
        if runs_kernels(rows) and not is_transformed():
            return self._shaped(self._kernels(rows), x)
        with own_dtype(rows):
            return self._shaped(self._plain(rows), x)

    def _kernels(self, rows: Tensor) -> Tensor:
        """Return the output of rows (B, I) by kernels."""
        raise NotImplementedError

    def _plain(self, rows: Tensor) -> Tensor:
        """Return the output of rows (B, I) in plain PyTorch."""
        raise NotImplementedError

    def _bind(self, addresses: list[int]) -> _Bound | None:
        """Return the layer on the parameters' memory, or None if kernels cannot take them there.

        It is made again once a parameter lies elsewhere, as after ``to``.
        """
        names = self._config.shapes()
        if any(name not in self._parameters for name in names):  # computed, by parametrizations
            return None
        first, *others = tensors = self._tensors()
        plain = all(type(each) in (Tensor, torch.nn.Parameter) for each in tensors)
        alike = all(each.dtype == first.dtype and each.is_cpu for each in others)
        if not (
            plain and alike and runs_kernels(first) and all(map(Tensor.is_contiguous, tensors))
        ):
            return None
        layer = self.to_layer()
        shapes = (1, layer.config.input_dim), (1, layer.config.output_dim)
        self._bound = _Bound(addresses, layer, *shapes, layer._dtype, *layer._few_rows())
        return self._bound

    def _tensors(self) -> tuple[Tensor, ...]:
        """Return the parameters in the config's order."""
        return tuple(getattr(self, name) for name in self._config.shapes())

    def _converted(self, x: Tensor) -> Tensor:
        """Return x in the parameters' dtype."""
        if x.is_complex():
            raise ArgumentTypeError(f"argument 'x' must hold real numbers, got {describe(x)}")
        return x.to(self._tensors()[0].dtype)

    def _rows(self, x: Any) -> Tensor:
        """Return x (..., I) as rows (B, I) of the parameters' dtype."""
        width, device = self._config.input_dim, self._tensors()[0].device
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(f"argument 'x' must be a torch.Tensor, got {describe(x)}")
        if x.ndim == 0 or x.shape[-1] != width:
            shape = tuple(x.shape)
            raise ShapeError(f"argument 'x' must have shape (..., {width}), got shape {shape}")
        if x.device != device:
            raise ArgumentError(
                f"argument 'x' must be on the device of the parameters, {device}, got {x.device}"
            )
        return self._converted(x).reshape(-1, width)

    def _shaped(self, y: Tensor, x: Tensor) -> Tensor:
        """Return the output of rows (B, O) with the leading axes of x."""
        return y.reshape(*x.shape[:-1], self._config.output_dim)


def needs_gradients(*tensors: Tensor | None) -> bool:
    """Whether autograd must record what is computed from tensors."""
    return is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )


def own_dtype(rows: Tensor) -> Any:
    """Return a context in which autocast leaves rows, and what is computed of them, as they are."""
    if rows.is_meta:  # without numbers, autocast does not know it
        return contextlib.nullcontext()
    return torch.autocast(rows.device.type, enabled=False)


def config_dtype(dtype: torch.dtype) -> str:
    """Return the dtype of the layer of parameters of a dtype."""
    return "float64" if dtype == torch.float64 else "float32"


def uniform_bound(width: int) -> float:
    """Return the largest initial value of parameters that act on so many numbers."""
    return 1 / math.sqrt(width)


def _writable(array: Any) -> Any:
    """Return an array, or a copy of a read-only one, which tensors cannot be."""
    return array if array.flags.writeable else array.copy()


def _published_array(value: Any) -> Any:
    """Return a tensor as an array; narrow floats, which NumPy lacks, are widened."""
    if not isinstance(value, Tensor):
        return value
    narrow = value.is_floating_point() and value.dtype != torch.float64
    return as_array(value.to("cpu", torch.float32 if narrow else value.dtype))
