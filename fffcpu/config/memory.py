"""Whether what a config describes fits into memory, and what would fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from fffcpu.config.layers import ArraysConfig
from fffcpu.errors import describe
from fffcpu.system.memory import check_memory

__all__ = ["check_fits"]

_SIZES = {
    "depth": "the deepest tree that fits has depth",
    "leaf_width": "the widest leaves that fit have a leaf_width of",
    "width": "the largest width that fits is",
    "feedforward_size": "the largest feedforward_size that fits is",
    "trees": "the largest number of trees that fits is",
    "layers": "the largest number of layers that fits is",
    "vocabulary": "the largest vocabulary that fits has",
}
"""Sizes of configs, in the order in which a smaller one is looked for, and how errors name it."""


def check_fits(
    config: ArraysConfig, need: Callable[[Any], int] | None = None, doing: str = ""
) -> None:
    """Raise unless there is memory for what a config describes.

    Parameters
    ----------
    config : ArraysConfig
        Config of a layer or a model.
    need : callable, optional
        Maps a config of this class to the bytes that are needed; by default those of the
        parameters.
    doing : str
        What needs them, to be followed by the config's name: ``"training "``.

    Raises
    ------
    NotEnoughMemoryError
        If there is too little. The message gives the bytes that are needed and available, and the
        largest depth (or another size) that fits.
    """
    need = need or _nbytes

    def advise(available: int) -> str:
        for field, words in _SIZES.items():
            most = _most(config, field, need, available)
            if most is not None:
                return f"{words} {most}"
        return "no smaller depth or width alone would fit"

    check_memory(need(config), f"{doing}{_name(config)}", advise)


def _nbytes(config: ArraysConfig) -> int:
    return config.nbytes


def _most(config: Any, field: str, need: Callable[[Any], int], available: int) -> int | None:
    """Return the largest value of a field that fits; None if there is none."""
    value = getattr(config, field, None)
    # The width of an encoder has to suit its heads.
    if not isinstance(value, int) or (field == "width" and hasattr(config, "heads")):
        return None

    def fits(smaller: int) -> bool:
        return need(dataclasses.replace(config, **{field: smaller})) <= available

    low, high = 0 if field == "depth" else 1, value
    if high <= low or not fits(low):
        return None
    while high - low > 1:  # low fits, and high does not
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _name(config: Any) -> str:
    """Return a config in the words of errors."""
    kind = getattr(config, "kind", type(config).__name__.removesuffix("Config"))
    sizes = [
        f"{name} {describe(getattr(config, name))}"
        for name in ("depth", "trees", "leaf_width", "width", "feedforward_size", "layers")
        if isinstance(getattr(config, name, None), int)
    ]
    return f"a {kind} of {', '.join(sizes)}" if sizes else f"a {kind}"
