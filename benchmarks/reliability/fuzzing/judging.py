"""What counts as right: an error of ours that names the file, or a value that holds.

Whatever else happens is a fault: another class of error, a message without the file's name, a
warning of a library, a value that differs from the oracle's, or too much memory.
"""

from __future__ import annotations

import contextlib
import io
import re
import traceback
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from fffcpu.cli import main
from fffcpu.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    DataError,
    ShapeError,
)

__all__ = ["FLOOR", "METER", "MULTIPLE", "OURS", "Meter", "Undecided", "Verdict", "judge"]
__all__ += ["judge_command", "signature_of"]

OURS = (ArgumentError, ArgumentTypeError, CheckpointError, DataError, ShapeError)
"""The classes of errors about arguments and files."""

MULTIPLE = 64
FLOOR = 4 << 20
"""A reader may take this many bytes for each byte of its input, after unpacking, and some more."""

PACKAGE = f"{Path(__file__).parents[3] / 'fffcpu'}/"


class Undecided(Exception):  # noqa: N818  # no error, but no answer
    """The other code cannot tell what the file holds."""


class Verdict(NamedTuple):
    """The result of a case."""

    outcome: str
    """``read``, ``refused`` or ``fault``."""
    signature: str
    """Equal for cases that went the same way through the code."""
    detail: str = ""
    """For a fault: what happened."""


class Meter:
    """The peak of the memory that Python and NumPy take in a block, in bytes."""

    def __init__(self) -> None:
        self.peak = 0

    def __enter__(self) -> Self:
        tracemalloc.reset_peak()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = max(self.peak, tracemalloc.get_traced_memory()[1] - self._before)


METER = Meter()
"""The meter of the readers; `judge` resets it."""


def judge(check: Callable[[], str | None], names: Sequence[str] = ()) -> Verdict:
    """Run a check, and return its verdict.

    Parameters
    ----------
    check : callable
        Returns what is wrong with a result, or None; raises AssertionError for the same, and
        `Undecided` if it cannot tell.
    names : sequence of str
        Names of which an error's message must have one; none are needed if there are none.
    """
    METER.peak = 0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            complaint = check()
        except (AssertionError, Undecided) as error:
            complaint = str(error) if isinstance(error, AssertionError) else None
        except (*OURS, OSError) as error:
            message = str(error)
            if names and not any(name in message for name in names):
                return Verdict("fault", f"unnamed {signature_of(error)}", _detail(error))
            return Verdict("refused", signature_of(error))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            place = signature_of(error).partition(": ")[0]
            return Verdict("fault", f"raised {place}", _detail(error))
    foreign = [str(w.message) for w in warned if not any(name in str(w.message) for name in names)]
    if complaint is not None:
        return Verdict("fault", f"wrong: {_skeleton(complaint)}", complaint)
    if foreign:
        return Verdict("fault", f"warning: {_skeleton(foreign[0])}", foreign[0])
    return Verdict("read", "read" + "".join(f" {_skeleton(str(w.message))}" for w in warned))


def judge_command(arguments: Sequence[str]) -> Verdict:
    """Run a command in this process, and tell whether it ended as commands must."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        try:
            status = main(arguments)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return Verdict("fault", f"command: {signature_of(error)}", _detail(error))
    lines = errors.getvalue().splitlines()
    told = [line for line in lines if line.startswith("fffcpu: error: ")]
    if status == 0 and not told:
        return Verdict("read", "command done")
    in_a_line = status == 2 or (status == 1 and lines[-1:] == told)
    if in_a_line and "Traceback" not in errors.getvalue():
        return Verdict("refused", f"command: {_skeleton(lines[-1])}")
    return Verdict("fault", f"command: status {status}", errors.getvalue()[-2000:])


def signature_of(error: BaseException) -> str:
    """Return the class of an error, where in the package it was raised, and its words."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
    place = f"{own[-1].filename.removeprefix(PACKAGE)}:{own[-1].lineno}" if own else "outside"
    return f"{type(error).__name__} at {place}: {_skeleton(str(error))}"


def _skeleton(message: str) -> str:
    """Return a message without what is quoted, and without numbers."""
    message = re.sub(r"'[^']*'|\"[^\"]*\"", "'", message[:400])
    return re.sub(r"\d+", "0", message)[:90]


def _detail(error: BaseException) -> str:
    lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-6)
    return "".join(lines)[-3000:]
