"""The command line of a benchmark: its parser, and the line that runs it again."""

from __future__ import annotations

import argparse
import shlex
import sys

from fffcpu.system.terminal import escape_unencodable

__all__ = ["command_line", "new_parser", "program"]


def new_parser(description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser whose help keeps the lines of a module's docstring."""
    escape_unencodable()  # every benchmark begins here
    return argparse.ArgumentParser(
        prog=f"python {shlex.join(program())}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def command_line() -> str:
    """Return the command that runs this process, as a user types it."""
    return f"python {shlex.join([*program(), *sys.argv[1:]])}"


def program() -> list[str]:
    """Return the arguments of Python that name the running module, or its file."""
    spec = sys.modules["__main__"].__spec__
    return ["-m", spec.name.removesuffix(".__main__")] if spec else sys.argv[:1]
