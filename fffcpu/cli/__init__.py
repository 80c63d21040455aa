"""The command ``fffcpu``: one module a sub-command, each with ``add`` and ``run``.

``add`` registers the sub-command and its options, ``run`` does it. What is slow to import is
imported by ``run``, so that ``fffcpu --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from fffcpu import __version__
from fffcpu.cli import (
    bench,
    classify,
    convert,
    demo,
    embed,
    fill_mask,
    finetune,
    info,
    inspection,
    predict,
    pretrain,
    quantize,
    train,
    warmup,
)
from fffcpu.errors import WrongOutputError

__all__ = ["main"]

COMMANDS = (
    *(demo, train, predict, info, inspection, quantize, convert),
    *(pretrain, finetune, fill_mask, classify, embed),
    *(bench, warmup),
)

ERRORS = (
    *(ValueError, TypeError, OSError, ImportError, MemoryError),
    *(FloatingPointError, WrongOutputError),
)
"""What is told in one line: complaints about what the user asked for, or what the system lacks."""

DESCRIPTION = """\
Fast feedforward networks on CPUs: layers that hold thousands of neurons as a binary tree and use,
for each row, only those on one path from the root to a leaf.

start here:
  fffcpu demo                      train on real digits, save, reload, time: under a minute
  fffcpu train DATA --out MODEL    from a table (.csv, .npy, .npz, IDX) to a model
  fffcpu predict MODEL DATA        what a model says of each row of a table
  fffcpu info FILE                 what a saved layer is, and what it costs
  fffcpu inspect FILE DATA         how the rows of a table use the layer's trees
  fffcpu quantize IN OUT           a saved layer with bfloat16 or int8 weights
  fffcpu convert IN OUT            published formats of layers and models to ours, and back
  fffcpu pretrain TEXT --out BERT  from text to a FastBERT
  fffcpu finetune BERT DATA        from a FastBERT and labelled texts to a classifier
  fffcpu fill-mask "a [MASK]"      which words may stand there
  fffcpu classify MODEL TEXTS      of which class texts are
  fffcpu embed MODEL TEXTS         a vector of each text
  fffcpu bench                     microseconds a row, beside a dense layer
  fffcpu warmup                    compile kernels before a server starts
  fffcpu COMMAND --help            options, examples, how to read the output
"""

EPILOG = """\
environment:
  FFFCPU_BACKEND                   forces a kernel module: rowwise, vectorized, cuda or a dotted one
  NUMBA_NUM_THREADS                most threads that kernels may use
  NUMBA_THREADING_LAYER            forces what they run on: tbb, omp or workqueue
  NUMBA_CACHE_DIR                  where compiled kernels are kept between processes

exit status: 0 done, 1 an error told in one line, 2 wrong usage, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of the process.

    Returns
    -------
    int
        The exit status: 0, or 1 after an error, 130 after Ctrl-C, 141 if the reader of the output
        has gone.

    Raises
    ------
    SystemExit
        With status 2 for wrong usage and 0 after ``--help`` and ``--version``.
    """
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141


def _run(argv: Sequence[str] | None) -> int:
    """Parse and run; a reader of the output who has gone shows here and not at exit."""
    try:
        options = _parser().parse_args(argv)
        try:
            options.run(options)
        except BrokenPipeError:
            raise
        except ERRORS as error:
            if options.traceback:
                raise
            sys.stdout.flush()
            print(f"fffcpu: error: {_one_line(error)}", file=sys.stderr)
            return 1
    finally:
        sys.stdout.flush()
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser with all commands."""
    parser = argparse.ArgumentParser(
        "fffcpu",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fffcpu {__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="let an error end with Python's traceback"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands).set_defaults(run=command.run)
    return parser


def _one_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.strerror}: '{os.fsdecode(error.filename)}'"
    elif isinstance(error, MemoryError):
        text = f"not enough memory: {text}" if text else "not enough memory"
    return " ".join(text.split()) or type(error).__name__


def _discard_output() -> None:
    """Send what is still buffered nowhere, lest it fail again when Python exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
