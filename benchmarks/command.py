"""The command line of a benchmark: its parser, and the line that runs it again."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from fffcpu.system.terminal import escape_unencodable

__all__ = ["add_out", "add_selection", "command_line", "new_parser", "parse_into", "program"]


def new_parser(description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser whose help keeps the lines of a module's docstring."""
    escape_unencodable()  # every benchmark begins here
    return argparse.ArgumentParser(
        prog=f"python {shlex.join(program())}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_selection(
    parser: argparse.ArgumentParser, option: str, names: Collection[str], metavar: str, what: str
) -> None:
    """Add an option that takes some of the names, by default all."""
    parser.add_argument(
        option,
        nargs="+",
        choices=names,
        default=list(names),
        metavar=metavar,
        help=f"{what} (all): {', '.join(names)}",
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the folder of the results, and ``--quick``; see `parse_into`."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the results")
    parser.add_argument(
        "--quick", action="store_true", help="use few rows, in OUT/quick, to see that it runs"
    )


def parse_into(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse arguments of `add_out`; results of ``--quick`` go to a folder of their own."""
    options = parser.parse_args(arguments)
    if options.quick:
        options.out /= "quick"
    return options


def command_line() -> str:
    """Return the command that runs this process, as a user types it."""
    return f"python {shlex.join([*program(), *sys.argv[1:]])}"


def program() -> list[str]:
    """Return the arguments of Python that name the running module, or its file."""
    spec = sys.modules["__main__"].__spec__
    return ["-m", spec.name.removesuffix(".__main__")] if spec else sys.argv[:1]
