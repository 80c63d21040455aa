"""What layers share: a config, parameters, copies, running rows, and files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import as_real_array, as_rows, check_elements, check_out
from fffcpu.config import Activation, ArraysConfig, LayerConfig
from fffcpu.config.layers import NO_ACTIVATION
from fffcpu.config.memory import check_fits
from fffcpu.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    ShapeError,
    describe,
)
from fffcpu.lowbit import numpy_dtype
from fffcpu.parameters import Parameters, empty_output, flush, generator

__all__ = ["INITIAL_STD", "Layer", "Module", "new_parameters", "parameter_dtype", "product"]

Array = NDArray[Any]
ModuleConfig = TypeVar("ModuleConfig", bound=ArraysConfig)
Config = TypeVar("Config", bound=LayerConfig)

INITIAL_STD = 0.02
"""Standard deviation of a module's initial weights, as in BERT."""


def parameter_dtype(*arrays: Array | None) -> str:
    """Return the dtype of a layer made of these arrays.

    It is float32 if every array fits in it without loss, else float64.
    """
    kinds = [array.dtype for array in arrays if array is not None]
    return "float32" if np.result_type(np.float32, *kinds) == np.float32 else "float64"


def product(
    a: Array, b: Array, bias: Array | None = None, activation: int = NO_ACTIVATION
) -> Array:
    """Return the product of matrices (B, I) and (I, O), plus a bias (O,), and activations of that.

    A row has the same bits in any batch if kernels are compiled.
    """
    y = np.empty((len(a), b.shape[1]), a.dtype)
    kernels.selection().encoder.matmul(y, a, b, bias, activation)
    return y


def new_parameters(config: ArraysConfig) -> Parameters:
    """Return uninitialized parameters of a config.

    Raises
    ------
    NotEnoughMemoryError
        If there is too little memory; nothing of it was taken.
    """
    check_fits(config)
    return Parameters.empty(config.shapes(), config.dtype)


_LOST = 2.0**-3
"""Rounding of a column, relative to its scale, with which a layer's dtype loses its changes."""


class Module(Generic[ModuleConfig]):
    """Base of all objects with parameters: the layers, and the modules that models consist of."""

    @property
    def config(self) -> ModuleConfig:
        """Config of the module."""
        return self._config

    @property
    def params(self) -> Parameters:
        """Arrays by name; their numbers may be changed in place."""
        return self._params

    @classmethod
    def _from(cls, config: Any, arrays: Mapping[str, Array]) -> Self:
        """Make a layer from arrays of ``config.shapes()``, which are copied."""
        check_fits(config, doing="a copy of ")
        ordered = {name: arrays[name] for name in config.shapes()}
        dtypes = {name: numpy_dtype(dtype) for name, dtype in config.dtypes().items()}
        return cls._sharing(config, Parameters(ordered, dtypes))

    @classmethod
    def _sharing(cls, config: Any, params: Parameters) -> Self:
        """Make a layer on these parameters, not copies: a model shares arrays with its layers."""
        layer = cls.__new__(cls)
        layer._set_up(config, params)
        return layer

    def _set_up(self, config: ModuleConfig, params: Parameters) -> None:
        self._config = config
        self._params = params
        self._dtype = np.dtype(config.dtype)

    def _start(self, config: ModuleConfig, rng: Any, std: float = INITIAL_STD) -> None:
        """Set up a module with its initial values; constructors end with this call."""
        self._set_up(config, new_parameters(config))
        self._initialise(std, generator(rng))

    def _initialise(self, std: float, rng: np.random.Generator) -> None:
        """Write the initial values that the class describes."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.config}: {self.params.nbytes / 1e6:.3g} MB>"

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return self.params.nbytes

    def copy(self) -> Self:
        """Return a layer with the same numbers in its own arrays."""
        return self._from(self.config, self.params)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        # For pickle and the copy module: plain arrays are stored, aligned ones made on loading.
        return self._from, (self.config, dict(self.params))

    def _upstream_rows(self, dy: Any, leading: tuple[int, ...], width: int) -> Array:
        """Return the upstream gradient as rows, checked against the forward's leading shape."""
        rows, shape = as_rows(dy, "dy", width, self._dtype)
        if shape != leading:
            raise ShapeError(
                f"argument 'dy' must have the shape of the output, {(*leading, width)}, "
                f"got shape {(*shape, width)}"
            )
        return rows

    def _check_cache(self, cache: Any, kind: type, **shapes: tuple[int, ...]) -> None:
        """Raise unless ``cache`` is what forward of this layer returned.

        Kernels trust these arrays. A wrong one could make them read foreign memory.

        Parameters
        ----------
        cache : object
            The argument to check.
        kind : type
            The NamedTuple that it must be.
        **shapes : tuple of int
            Shape per row of each of its arrays, by name.
        """
        expected = f"the {kind.__name__} that forward of this layer returned"
        if not isinstance(cache, kind):
            raise ArgumentTypeError(f"argument 'cache' must be {expected}, got {describe(cache)}")
        rows = math.prod(cache.leading)  # type: ignore[attr-defined]
        for name, shape in shapes.items():
            array = getattr(cache, name)
            dtype = np.int32 if name == "nodes" else self._dtype
            if array.shape != (rows, *shape) or array.dtype != dtype:
                raise ShapeError(
                    f"argument 'cache' must be {expected}, with '{name}' of shape {(rows, *shape)} "
                    f"and dtype {np.dtype(dtype)}, got {describe(array)}"
                )


class Layer(Module[Config]):
    """Base of the layers that can be used alone: rows in, rows out, and files."""

    config_type: ClassVar[type[LayerConfig]]

    _reading: ClassVar[tuple[tuple[str, str, int], ...]] = ()
    """Weights that multiply x, their biases, and the axis along which x lies."""
    _writing: ClassVar[tuple[str, ...]] = ()
    """Parameters to which, together, the output is proportional."""

    @classmethod
    def _from_checked(cls, config: LayerConfig, arrays: Mapping[str, Any]) -> Self:
        """Like `_from`, but checks the shapes of arrays from a user."""
        for name, shape in config.shapes().items():
            if arrays[name].shape != shape:
                raise ShapeError(
                    f"argument '{name}' must have shape {shape} to match the other arrays, "
                    f"got shape {arrays[name].shape}"
                )
        return cls._from(config, arrays)

    def _set_up(self, config: Config, params: Parameters) -> None:
        super()._set_up(config, params)
        self._activation = int(Activation.parse(config.activation))

    def __repr__(self) -> str:
        config, name = self.config, type(self).__name__
        fields = ", ".join(f"{field}={value!r}" for field, value in config.to_dict().items())
        used = f"{config.active_neurons} of {config.neurons} neurons per row"
        return f"<{name}({fields}): {used}, {self.params.nbytes / 1e6:.3g} MB>"

    def absorb_input_scaling(self, mean: Any, scale: Any) -> None:
        """Change the parameters so that ``layer(x)`` equals the old ``layer((x - mean) / scale)``.

        A layer that was trained on scaled rows then takes the rows as measured. Outputs change by
        rounding only.

        Parameters
        ----------
        mean, scale : array_like of shape (I,) or ()
            Mean and scale of the columns of x; no scale may be 0. A mean that is large compared
            with its scale, such as a time in seconds, cannot be absorbed: the rows themselves lose
            their changes in the layer's dtype. `fffcpu.Predictor` subtracts such means in float64.

        Raises
        ------
        ArgumentError
            If the layer has no bias that can absorb a nonzero mean, a scale is 0, a mean is too
            large compared with its scale, or a parameter would not be finite.
        """
        width = self.config.input_dim
        mean, scale = (np.broadcast_to(np.asarray(v, np.float64), width) for v in (mean, scale))
        check_elements(scale, "scale", scale != 0, "numbers other than 0")
        largest = _LOST / float(np.finfo(self._dtype).eps)
        check_elements(
            mean,
            "mean",
            np.abs(mean) <= largest * np.abs(scale),
            f"numbers up to {largest:.0f} times the scale, since {self._dtype} loses what changes "
            "larger ones (fffcpu.Predictor subtracts them in float64)",
        )
        self._absorb(mean, scale)

    def _absorb(self, mean: Array, scale: Array) -> None:
        """Absorb any scaling (I,), even one whose mean is large compared with its scale."""
        if mean.any() and any(bias not in self.params for _, bias, _ in self._reading):
            raise ArgumentError("argument 'mean' must be 0 for a layer without a bias")
        changed = {}
        with np.errstate(over="ignore", invalid="ignore"):
            for name, bias, axis in self._reading:
                scaled = np.moveaxis(self.params[name], axis, -1) / scale
                if mean.any():
                    changed[bias] = self._rounded(bias, self.params[bias] - scaled @ mean)
                changed[name] = self._rounded(name, np.moveaxis(scaled, -1, axis))
                del scaled  # float64, twice the memory of the weights
        self._change(changed)

    def absorb_output_scaling(self, scale: Any) -> None:
        """Change the parameters so that the output is ``scale`` (O,) times the old output.

        Raises
        ------
        ArgumentError
            If a parameter would not be finite.
        """
        factor = np.asarray(scale, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            self._change(
                {name: self._rounded(name, self.params[name] * factor) for name in self._writing}
            )

    def _rounded(self, name: str, value: Array) -> Array:
        """Return a parameter's new value in its dtype; raise if a scale takes it out of range."""
        rounded: Array = value.astype(self.params[name].dtype)
        if not np.isfinite(rounded).all():
            raise ArgumentError(
                f"argument 'scale' must keep the parameters finite in {rounded.dtype}, got one "
                f"that takes '{name}' beyond its range"
            )
        return rounded

    def _change(self, values: dict[str, Array]) -> None:
        """Set parameters."""
        for name, value in values.items():
            self.params[name][...] = value
            flush(self.params[name])

    def usage(self, cache: Any) -> dict[str, Array]:
        """Return the number of rows that used each node, gate or leaf, by parameter name.

        Parameters
        ----------
        cache : object
            Cache that `forward` returned.

        Returns
        -------
        dict of str to array
            For each parameter that only some rows use, an array of its leading shape; parameters
            with the same counts share the array. Empty for a dense layer.
        """
        return {}

    def save(self, path: str | os.PathLike[str], notes: Mapping[str, str] | None = None) -> None:
        """Write the layer to a safetensors file.

        The file appears complete or not at all. docs/formats.md describes it.

        Parameters
        ----------
        path : path
            Path of the file, which is replaced if it exists.
        notes : mapping of str to str, optional
            Further metadata for the file, which `load` ignores.
        """
        from fffcpu.checkpoints import native

        native.save(path, self.config, self.params, notes)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a layer that `save` wrote.

        Raises
        ------
        CheckpointError
            If the file is damaged, foreign, of another version or holds a layer of another class.
        """
        from fffcpu.checkpoints import native

        config, arrays = native.load(path)
        if type(config) is not cls.config_type:
            raise CheckpointError(
                f"'{os.fspath(path)}' must hold a {cls.config_type.kind}, got a {config.kind}"
            )
        return cls._from(config, arrays)

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        """Run the layer.

        Parameters
        ----------
        x : array_like of shape (..., I)
            Real numbers in any layout.
        out : array of shape (..., O), optional
            Array for the output, of the parameters' dtype. It may overlap ``x``.

        Returns
        -------
        array of shape (..., O)
            The output; ``out`` itself if it was given.

        Raises
        ------
        ShapeError, TypeError
            If ``x`` or ``out`` is not such an array.
        """
        config, dtype = self._config, self._dtype
        width = config.output_dim
        # Rows that need no conversion come first: one row takes a few microseconds in all.
        shape: tuple[int, ...] = x.shape if _is_ready(x, dtype) else ()
        if len(shape) == 2 and shape[1] == config.input_dim:
            if out is None:
                y = empty_output(shape[0], width, dtype)
                self._compute(y, x)
                return y
            fits = _is_ready(out, dtype) and out.shape == (shape[0], width)
            if fits and out.flags.writeable and not np.may_share_memory(out, x):
                self._compute(out, x)
                return out
        rows, leading = self._rows(x)
        if out is None:
            y = empty_output(len(rows), width, dtype)
            self._compute(y, rows)
            return y.reshape(*leading, width)
        check_out(out, (*leading, width), dtype)
        target: Array = np.asarray(out)  # the memory of a masked array or another subclass
        flags = target.flags
        direct = flags.c_contiguous and flags.aligned and not np.may_share_memory(target, rows)
        y = target.reshape(-1, width) if direct else np.empty((len(rows), width), dtype)
        self._compute(y, rows)
        if not direct:
            target[...] = y.reshape(target.shape)
        result: Array = out
        return result

    def _compute(self, y: Array, rows: Array) -> None:
        """Write the output of rows (B, I) to y (B, O), which shares no memory with them."""
        raise NotImplementedError

    def _few_rows(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """Return the kernel for fewer than `FEWEST_ROWS` rows, and its arguments after y and rows.

        Callers that cannot wait for the choice of a backend keep both.
        """
        raise NotImplementedError

    def _rows(self, x: Any) -> tuple[Array, tuple[int, ...]]:
        """Return input as rows of the parameters' dtype, and its leading shape."""
        return as_rows(x, "x", self._config.input_dim, self._dtype)

    def _upstream(self, dy: Any, leading: tuple[int, ...]) -> Array:
        """Return the upstream gradient as rows, checked against the forward's leading shape."""
        return self._upstream_rows(dy, leading, self.config.output_dim)


def _is_ready(array: Any, dtype: np.dtype[Any]) -> bool:
    """Whether kernels can take the array as it is."""
    if type(array) is not np.ndarray or array.dtype is not dtype:
        return False
    flags = array.flags
    return flags.carray or (flags.c_contiguous and flags.aligned)


def as_parameter(value: Any, name: str, *axes: int) -> Array:
    """Return an array-like of real numbers, after checking its number of axes: one of ``axes``.

    Raises
    ------
    ArgumentTypeError, ShapeError
        If it is not such an array.
    """
    array = as_real_array(value, name)
    if array.ndim not in axes:
        number = "1 axis" if axes == (1,) else f"{' or '.join(map(str, axes))} axes"
        raise ShapeError(f"argument '{name}' must have {number}, got shape {array.shape}")
    return array
