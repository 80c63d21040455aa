"""The models of a server by name: opened, warmed, and reloaded."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fffcpu.errors import ArgumentError, ArgumentTypeError, describe
from fffcpu.serve.errors import RequestError
from fffcpu.serve.models import ServedModel, open_served, served
from fffcpu.serve.tensors import TensorSpec

__all__ = ["Registry"]

_LOGGER = logging.getLogger("fffcpu.serve")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Registry:
    """The models of a server.

    Parameters
    ----------
    models : mapping of str to path or model
        Names, and paths or models: see `fffcpu.serve.app`.
    max_outputs : int
        Most bytes that the outputs of a request may take.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If there is no model, or a name is not made of letters, digits, ``.``, ``_`` and ``-``.
    """

    def __init__(self, models: Mapping[str, Any], max_outputs: int) -> None:
        if not isinstance(models, Mapping):
            raise ArgumentTypeError(
                f"argument 'models' must map names to models, got {describe(models)}"
            )
        if not models:
            raise ArgumentError("argument 'models' must have at least one model, got none")
        names: list[Any] = list(models)
        for name in names:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise ArgumentError(
                    "the name of a model must have letters, digits, '.', '_' and '-' only, and "
                    f"begin with one of the former, got {describe(name)}"
                )
        self.sources = dict(models)
        self.max_outputs = max_outputs
        self.ready = False
        self.since = int(time.time())
        self._loading = asyncio.Lock()
        # At once, so that what cannot be opened ends the program.
        self._models = {name: self._open(name) for name in models}

    def __iter__(self) -> Any:
        return iter(self._models)

    def get(self, name: str) -> ServedModel:
        """Return a model.

        Raises
        ------
        RequestError
            If there is no such model.
        """
        model = self._models.get(name)
        if model is None:
            raise RequestError(
                f"there is no model {name[:100]!r}; the models are {', '.join(self._models)}",
                HTTPStatus.NOT_FOUND,
            )
        return model

    def warm(self, is_over: Callable[[], bool]) -> None:
        """Warm all models up; then the server is ready.

        Parameters
        ----------
        is_over : callable
            Returns whether the server ends. Then no further model is warmed up.
        """
        for model in self._models.values():
            if is_over():
                return
            model.warm()
        self.ready = True

    async def load(self, name: str) -> None:
        """Read a model anew from its path; requests meanwhile get the former one.

        A warning tells if the new one takes or gives something else, since clients may not know it.

        Raises
        ------
        RequestError
            If the model has no path, or cannot be read: then the former one stays.
        """
        self.get(name)
        if not isinstance(self.sources[name], str | os.PathLike):
            raise RequestError(f"model '{name}' was given without a path, so it cannot be read")
        async with self._loading:
            try:
                model = await asyncio.to_thread(self._opened_and_warm, name)
            except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
                raise RequestError(
                    f"model '{name}' stays as it was: {error}", HTTPStatus.INTERNAL_SERVER_ERROR
                ) from error
            former, self._models[name] = self._models[name], model
        _LOGGER.info("model '%s' was reloaded", name)
        for what in ("inputs", "outputs"):
            before, now = getattr(former, what), getattr(model, what)
            if before != now:
                _LOGGER.warning(
                    "model '%s' has other %s than before: %s instead of %s",
                    *(name, what, _listed(now), _listed(before)),
                )

    def _opened_and_warm(self, name: str) -> ServedModel:
        model = self._open(name)
        model.warm()
        return model

    def _open(self, name: str) -> ServedModel:
        source = self.sources[name]
        opened = open_served if isinstance(source, str | os.PathLike) else served
        model = opened(source, self.max_outputs)
        model.name = name
        return model


def _listed(specs: Iterable[TensorSpec]) -> str:
    """Return tensors in words; a size of -1 is free."""
    return ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in specs)
