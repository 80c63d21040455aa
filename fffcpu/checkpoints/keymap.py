"""Key maps: a foreign format as data, and the one translation that uses such data.

An entry names the axes of both arrays by letters, the shape symbols of the mathematics. Each of our
axes is one letter; an axis of theirs is a product of ours, slowest first. For example, the
published output weights of T trees of N nodes are one matrix, with one column per node per tree::

    theirs  linear_out.weight   ("O", "TN")      shape (O, T * N)
    ours    weights_out         "TNO"            shape (T, N, O)

So reading is a split of the axes and a transposition, and writing is the inverse. An empty product
is an axis of length one: ``("G", "")`` is a column of shape (G, 1).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checkpoints.differences import check_arrays, list_differences
from fffcpu.config import LayerConfig
from fffcpu.config.memory import check_fits
from fffcpu.errors import ArgumentTypeError, CheckpointError, describe

__all__ = ["Entry", "KeyMap", "as_array", "check_mapping", "shape_text", "type_text"]


class Entry(NamedTuple):
    """One array with its two names and the axes of both."""

    theirs: str
    """Published name."""
    axes: tuple[str, ...]
    """Letters for each axis of the published array; their lengths multiply to its length."""
    ours: str
    """Our name."""
    our_axes: str
    """One letter per axis of our array."""

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the published shape of an array with our shape ``shape``."""
        lengths = dict(zip(self.our_axes, shape, strict=True))
        return tuple(math.prod(lengths[letter] for letter in axis) for axis in self.axes)

    def to_ours(self, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a view (else a copy) of a published array in our shape ``shape``."""
        lengths = dict(zip(self.our_axes, shape, strict=True))
        letters = "".join(self.axes)
        split = array.reshape([lengths[letter] for letter in letters])
        return split.transpose([letters.index(letter) for letter in self.our_axes])

    def to_theirs(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return our array in the published shape, the inverse of ``to_ours``."""
        order = [self.our_axes.index(letter) for letter in "".join(self.axes)]
        return array.transpose(order).reshape(self.their_shape(array.shape))


@dataclasses.dataclass(frozen=True)
class KeyMap:
    """A published layer format.

    An array without elements may be absent, because it has no content: the gates of a tree of
    depth 0.
    """

    source: str
    """Name of the format in messages."""
    config_type: type[LayerConfig]
    """Class of the configs that fit the format."""
    entries: tuple[Entry, ...]
    """The arrays. One that a config does not have, such as a bias, is not in the files either."""
    scalars: tuple[str, ...] = ()
    """Keys that repeat the config's field of that name; they may be absent, but not different."""
    ignored: tuple[str, ...] = ()
    """Keys that are neither read nor written."""
    requires: tuple[tuple[str, Any], ...] = ()
    """Config fields for which the format has only one value."""

    def check_config(self, config: Any) -> None:
        """Raise unless the format can hold a layer of this config.

        Raises
        ------
        ArgumentTypeError
            If the config is that of another layer class.
        CheckpointError
            If a field has a value that the format does not support.
        """
        # Not a subclass: a quantized layer has other arrays.
        if type(config) is not self.config_type:
            raise ArgumentTypeError(
                f"argument 'config' must be a {self.config_type.__name__}, got {describe(config)}"
            )
        expected = {name: repr(value) for name, value in self.requires}
        came = {name: repr(getattr(config, name)) for name in expected}
        differences = list_differences(expected, came)
        if differences:
            advice = "train the layer with two_sided=False (--no-two-sided)"
            way_out = f"; {advice}" if getattr(config, "two_sided", False) else ""
            raise CheckpointError(f"{self.source} cannot hold {config}: {differences}{way_out}")

    def check_state(self, config: LayerConfig, state: Any) -> dict[str, NDArray[Any]]:
        """Return the published arrays of a state dict, not copied, after checking that they fit.

        An absent array without elements is included.

        Raises
        ------
        ArgumentTypeError
            If ``config`` or ``state`` has the wrong type.
        CheckpointError
            If the state dict is not that of this config's layer; the message lists all differences.
        """
        self.check_config(config)
        check_mapping(state)
        shapes = self._shapes(config)
        arrays = {name: as_array(name, state[name]) for name in shapes if name in state}
        scalars = {name: as_array(name, state[name]) for name in self.scalars if name in state}
        expected = {n: str(s) for n, s in shapes.items() if n in state or math.prod(s) > 0}
        expected |= {name: str(getattr(config, name)) for name in scalars}
        came = {name: "" for name in state if name not in self.ignored}
        came |= {name: shape_text(array) for name, array in arrays.items()}
        came |= {name: _scalar_text(array) for name, array in scalars.items()}
        differences = list_differences(expected, came)
        if differences:
            raise CheckpointError(f"the state dict is not {self.source} of {config}: {differences}")
        empty = {name: np.empty(shape) for name, shape in shapes.items() if name not in arrays}
        return arrays | empty

    def from_state_dict(self, config: LayerConfig, state: Any) -> dict[str, NDArray[Any]]:
        """Return our arrays, copied, with ``config.shapes()`` and ``config.dtype``.

        Raises the errors of ``check_state``.
        """
        arrays = self.check_state(config, state)
        shapes = config.shapes()
        check_fits(config, doing="a copy of ")
        result = {}
        for entry in self._entries(config):
            shape = shapes[entry.ours]
            array = entry.to_ours(arrays[entry.theirs], shape)
            result[entry.ours] = np.array(array, config.dtype, order="C")
        return {name: result[name] for name in shapes}

    def to_state_dict(
        self, config: LayerConfig, arrays: Mapping[str, Any]
    ) -> dict[str, NDArray[Any]]:
        """Return the published arrays, copied, in ``config.dtype``; scalars as int64.

        Raises
        ------
        ArgumentTypeError, CheckpointError
            If the format cannot hold the config, or the arrays do not fit the config.
        """
        self.check_config(config)
        ours = check_arrays(config, arrays)
        state = {name: np.array(getattr(config, name), np.int64) for name in self.scalars}
        for entry in self._entries(config):
            array = entry.to_theirs(ours[entry.ours])
            state[entry.theirs] = np.array(array, config.dtype, order="C")
        return state

    def axis_lengths(self, state: Any, wanted: tuple[str, ...]) -> tuple[int, ...]:
        """Return the lengths of published axes, from the first array that has each axis.

        Parameters
        ----------
        state : mapping of str to array
            Unchecked state dict. Whether its arrays fit each other is not checked here.
        wanted : tuple of str
            Axes, with their names in the entries.

        Raises
        ------
        ArgumentTypeError
            If ``state`` is not a mapping.
        CheckpointError
            If no array has a wanted axis of length at least one.
        """
        check_mapping(state)
        expected = {entry.theirs: f"({', '.join(entry.axes)})" for entry in self.entries}
        came = {name: "" for name in state if name not in (*self.ignored, *self.scalars)}
        lengths: dict[str, int] = {}
        for name, axes, *_ in reversed([entry for entry in self.entries if entry.theirs in state]):
            array = as_array(name, state[name])
            came[name] = shape_text(array)
            found = dict(zip(axes, array.shape, strict=False))
            if array.ndim == len(axes) and all(found.get(axis, 1) > 0 for axis in wanted):
                came[name] = expected[name]
                lengths |= found
        if not lengths.keys() >= set(wanted):
            differences = list_differences(expected, came)
            raise CheckpointError(f"the state dict is not {self.source}: {differences}")
        return tuple(lengths[axis] for axis in wanted)

    def precision(self, state: Mapping[str, Any], dtype: Any) -> Any:
        """Return ``dtype``; for None, float64 if the first array there is float64, else float32."""
        if dtype is not None:
            return dtype
        first = next(entry.theirs for entry in self.entries if entry.theirs in state)
        return "float64" if as_array(first, state[first]).dtype.name == "float64" else "float32"

    def _entries(self, config: LayerConfig) -> list[Entry]:
        """Return the entries of the arrays of a layer of this config."""
        shapes = config.shapes()
        return [entry for entry in self.entries if entry.ours in shapes]

    def _shapes(self, config: LayerConfig) -> dict[str, tuple[int, ...]]:
        """Return the published names and shapes of a layer of this config."""
        shapes = config.shapes()
        return {
            entry.theirs: entry.their_shape(shapes[entry.ours]) for entry in self._entries(config)
        }


def check_mapping(state: Any) -> None:
    """Raise unless a state dict is a mapping."""
    if not isinstance(state, Mapping):
        raise ArgumentTypeError(
            f"argument 'state' must be a mapping from names to arrays, got {type(state).__name__}"
        )


def as_array(name: str, value: Any) -> NDArray[Any]:
    """Return a value of a state dict as an array, not copied if it is one."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{name!r} of the state dict is not an array: {error}") from error


def shape_text(array: NDArray[Any], expected: str = "") -> str:
    """Describe an array of real numbers by its shape, anything else by shape and dtype.

    With an ``expected`` type, as `type_text` does.
    """
    real = array.dtype.kind in "biuf"
    if real and expected:
        return type_text(array.shape, array.dtype.name, expected)
    return str(array.shape) if real else f"{array.shape} of dtype {array.dtype}"


def type_text(shape: tuple[int, ...], dtype: str, expected: str) -> str:
    """Describe an array by its shape, and by its type if that or what is expected is int8.

    Floats that became int8 would lose their fractions.
    """
    return f"{dtype} {shape}" if "int8" in (dtype, expected) else str(shape)


def _scalar_text(array: NDArray[Any]) -> str:
    """Describe an integer by its value, anything else by its shape and dtype."""
    if array.shape == () and array.dtype.kind in "iu":
        return str(int(array))
    return f"{array.shape} of dtype {array.dtype}"
