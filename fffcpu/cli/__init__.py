"""The command ``fffcpu``: one module or package for each sub-command.

`COMMANDS` holds all that ``fffcpu --help`` prints about a sub-command. Its module is imported when
the sub-command is chosen, and has

- ``DESCRIPTION``, which ``fffcpu COMMAND --help`` prints above the options,
- ``add_arguments(parser)``, which adds its arguments and options, and
- ``run(options)``, which does the work.

`fffcpu.cli.support` holds what several commands share.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import itertools
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from fffcpu import __version__
from fffcpu.errors import ClusterError, WrongOutputError
from fffcpu.system.files import NO_SPACE
from fffcpu.system.terminal import escape_unencodable, print_status

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """A sub-command, as ``fffcpu --help`` shows it."""

    module: str
    """Its module in `fffcpu.cli`."""
    summary: str
    """What it does, in one line."""


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "demo": Command("demo", "train on real digits, save, reload, time"),
        "train": Command("train", "train a layer on a table"),
        "predict": Command("predict", "predict the rows of a table"),
        "evaluate": Command("evaluate", "compare predictions with the targets of a table"),
        "info": Command("info", "describe a saved layer and its costs"),
        "inspect": Command("inspection", "show how rows use a layer's trees"),
        "quantize": Command("quantize", "save a layer or a model with bfloat16 or int8 weights"),
        "convert": Command("convert", "read and write published formats"),
        "export": Command("export", "write a model as an ONNX file"),
        "pretrain": Command("pretrain", "pretrain a FastBERT on text"),
        "finetune": Command("finetune", "fine-tune a FastBERT or BERT to classify texts"),
        "distill": Command("distill", "make a faster encoder or classifier from a BERT"),
        "fill-mask": Command("fill_mask", "guess the masked words of texts"),
        "classify": Command("classify", "predict the classes of texts"),
        "embed": Command("embed", "make vectors of texts"),
        "serve": Command("serve", "answer requests over HTTP"),
        "bench": Command("bench", "time inference against a dense layer"),
        "warmup": Command("warmup", "compile kernels before a server starts"),
    }
)
"""The sub-commands by name, in the order of ``fffcpu --help``."""

ERRORS = (
    *(ValueError, TypeError, OSError, ImportError, MemoryError),
    *(ClusterError, FloatingPointError, WrongOutputError),
)
"""Errors that are reported in one line: errors in the input, or of the system."""

LOG_OPTION = "--log-level"
LOG_LEVELS = ("debug", "info")

DESCRIPTION = """\
Fast feedforward networks on CPUs: layers that hold thousands of neurons in a binary tree. Each row
uses only the neurons on one path from the root to a leaf.

start here:
  fffcpu demo                      everything on data that fffcpu carries: under a minute
  fffcpu train DATA --out MODEL    from a table (.csv, .npy, .npz, IDX) to a model
  fffcpu pretrain TEXT --out BERT  from text to a FastBERT
  fffcpu COMMAND --help            options, examples, how to read the output
"""

EPILOG = """\
environment:
  FFFCPU_BACKEND         the backend to use: rowwise, grouped, vectorized, cuda or a dotted name
  NUMBA_NUM_THREADS      the largest number of threads for the kernels
  NUMBA_THREADING_LAYER  the thread layer to use: tbb, omp or workqueue
  NUMBA_CACHE_DIR        the folder for compiled kernels

exit status: 0 done, 1 an error (reported in one line), 2 wrong usage, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. Default: those of the process.

    Returns
    -------
    int
        The exit status: 0, or 1 after an error, 130 after Ctrl-C, 141 if the reader of the output
        has closed it.

    Raises
    ------
    SystemExit
        With status 2 for wrong usage and 0 after ``--help`` and ``--version``.
    """
    escape_unencodable()
    try:
        with _short_warnings():
            return _run(argv)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Print warnings in a line, as errors are, without the place in the sources."""
    usual = warnings.formatwarning

    def short(message: Warning | str, *_: object, **__: object) -> str:
        return f"fffcpu: warning: {' '.join(str(message).split())}\n"

    warnings.formatwarning = short
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _run(argv: Sequence[str] | None) -> int:
    """Parse and run. Flush the output here, so that a closed pipe is not an error at exit."""
    try:
        options = _parse(sys.argv[1:] if argv is None else list(argv))
        try:
            with _logging(options.log_level):
                options.run(options)
        except BrokenPipeError:
            raise
        except ERRORS as error:
            if options.traceback:
                raise
            print(end="", flush=True)
            text = _one_line(error) + _way_out(error, options)
            print(f"fffcpu: error: {text}", file=sys.stderr)
            return 1
    finally:
        print(end="", flush=True)  # does nothing if standard output is closed
    return 0


@contextlib.contextmanager
def _logging(level: str | None) -> Iterator[None]:
    """Write what the package logs on standard error, from a level on; nothing without one."""
    if level is None:
        with _compile_notice():
            yield
        return
    logger, handler = logging.getLogger("fffcpu"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


class _CompileNotice(logging.Handler):
    """Says once that kernels are compiled: a first command takes a minute, and shows nothing."""

    told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print the notice at the first kernel, unless there is a log, as that of ``serve``."""
        logged = logging.getLogger("fffcpu").isEnabledFor(logging.INFO)
        if not (self.told or logged) and record.msg == "compiling %s":
            self.told = True
            print_status("compiling kernels, which later commands will find on disk ...")


@contextlib.contextmanager
def _compile_notice() -> Iterator[None]:
    """Tell a person at a terminal why nothing happens; files and pipes get no such line."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    logger, handler = logging.getLogger("fffcpu.kernels._numba.cache"), _CompileNotice()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


class _Parser(argparse.ArgumentParser):
    """A parser that reports an unknown option before other errors, and suggests a known one."""

    given: Sequence[str] = ()
    """The arguments that it parses."""

    def error(self, message: str) -> NoReturn:
        """End with the usage and a message."""
        # Not by a private attribute: the usage names every option.
        known = re.findall(r"(?<![\w-])--[\w-]+", self.format_usage())
        for word in itertools.takewhile(lambda word: word != "--", self.given):
            name = word.partition("=")[0]
            if name.startswith("--") and name not in [*known, "--help"]:
                super().error(f"unrecognized arguments: {word}{_meant(name, known)}")
        super().error(message)


def _meant(word: str, known: Iterable[str]) -> str:
    """Return a question about the known word that a wrong one resembles most, if any does."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments; an unknown option is an error of the command it follows."""
    index = _place_of_command(arguments)
    place = len(arguments) if index is None else index
    chosen = None if index is None else arguments[index]
    parser, commands = _parsers(chosen)
    parser.given = arguments[:place]
    if chosen is not None and chosen not in COMMANDS:
        hint = _meant(chosen, COMMANDS) or f" (choose from {', '.join(COMMANDS)})"
        parser.error(f"argument COMMAND: invalid choice: {chosen!r}{hint}")
    if chosen is not None:
        commands[chosen].given = arguments[place + 1 :]
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        blamed = parser if unknown[0] in arguments[:place] else commands[str(chosen)]
        blamed.error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _place_of_command(arguments: Sequence[str]) -> int | None:
    """Return the index of the sub-command: the first word that no option takes."""
    words = enumerate(arguments)
    for index, word in words:
        if word == LOG_OPTION:
            next(words, None)  # its value
        elif not word.startswith("-"):
            return index
    return None


def _parsers(chosen: str | None) -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser, and those of the sub-commands. Only the chosen one has its arguments."""
    parser = _Parser(
        "fffcpu",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fffcpu {__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="print Python's traceback after an error"
    )
    parser.add_argument(
        LOG_OPTION,
        choices=LOG_LEVELS,
        metavar="LEVEL",
        help="log to standard error what is chosen, compiled and saved: info or debug",
    )
    group = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands = {
        name: group.add_parser(
            name,
            help=command.summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for name, command in COMMANDS.items()
    }
    if chosen is not None and chosen in COMMANDS:
        _complete(commands[chosen], COMMANDS[chosen])
    return parser, commands


def _complete(parser: argparse.ArgumentParser, command: Command) -> None:
    """Import a sub-command, and give its parser the description and the arguments."""
    module = importlib.import_module(f"{__name__}.{command.module}")
    parser.description = module.DESCRIPTION
    parser.set_defaults(run=module.run)
    module.add_arguments(parser)


def _one_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.strerror}: '{os.fsdecode(error.filename)}'"
    elif isinstance(error, OSError) and error.strerror and error.errno in NO_SPACE:
        text = error.strerror
    elif isinstance(error, UnicodeError):
        text = f"a text has characters that cannot be read or written here ({error})"
    elif isinstance(error, MemoryError):
        text = f"not enough memory: {text}" if text else "not enough memory"
    return " ".join(text.split()) or type(error).__name__


def _way_out(error: BaseException, options: argparse.Namespace) -> str:
    """Return what to do about a full disk: what was there before is still there."""
    if not isinstance(error, OSError) or error.errno not in NO_SPACE:
        return ""
    again = " with --resume to continue" if hasattr(options, "resume") else " again"
    return f"; nothing was replaced: free some space, then run the same command{again}"


def _discard_output() -> None:
    """Discard the buffered output, so that Python does not fail again when it exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
