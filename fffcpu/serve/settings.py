"""Settings of a server: its bounds, its keys and what it may do."""

from __future__ import annotations

import dataclasses
from typing import Any

from fffcpu.checks import check_flag, check_integer, check_number
from fffcpu.errors import ArgumentError, describe

__all__ = ["LOGS", "ServeSettings"]

LOGS = ("text", "json")
"""``text``: lines about what goes wrong; ``json``: JSON objects, also about every request."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of a server.

    Parameters
    ----------
    max_batch_rows : int
        Most rows, or texts, of requests that are computed together. A larger request is computed
        by itself.
    queue : int
        Most requests that wait. Further ones are refused with status 429.
    max_body : int
        Most bytes of a request's body. All bodies that are held at a time may take eight times as
        many, and the outputs of a request four times. JSON takes several times its bytes while it
        is read.
    timeout : float
        Most seconds to receive a request, and again to answer it.
    drain : float
        Most seconds that accepted requests get when the server ends.
    keys : tuple of str
        Keys. A request must have one of them, unless there are none.
    reload : bool
        Whether models may be reloaded, by SIGHUP or ``POST /v2/repository/models/M/load``.
    log : {"text", "json"}
        Form of the log; see `LOGS`.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a value is out of range or of the wrong type.
    """

    max_batch_rows: int = 8192
    queue: int = 1024
    max_body: int = 16 << 20
    timeout: float = 30.0
    drain: float = 30.0
    keys: tuple[str, ...] = ()
    reload: bool = False
    log: str = "text"

    def __post_init__(self) -> None:
        for name in ("max_batch_rows", "queue", "max_body"):
            check_integer(name, getattr(self, name), 1)
        check_number("drain", self.drain, 0.0)
        if check_number("timeout", self.timeout, 0.0) == 0:
            raise ArgumentError("argument 'timeout' must be above 0, got 0")
        check_flag("reload", self.reload)
        if self.log not in LOGS:
            raise ArgumentError(
                f"argument 'log' must be {' or '.join(LOGS)}, got {describe(self.log)}"
            )
        keys: Any = self.keys
        if isinstance(keys, str) or not all(
            isinstance(key, str) and key and key.isascii() for key in keys
        ):
            raise ArgumentError("argument 'keys' must be a tuple of texts in ASCII, none empty")

    @property
    def held_bytes(self) -> int:
        """Most bytes of bodies that are held at a time."""
        return 8 * self.max_body

    @property
    def max_outputs(self) -> int:
        """Most bytes of numbers that the outputs of a request may take."""
        return 4 * self.max_body
