"""Terminal output: tables of text, messages on standard error, progress bars."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

__all__ = [
    "escape_unencodable",
    "format_number",
    "format_table",
    "print_status",
    "progress_bar",
    "with_progress",
]

T = TypeVar("T")


def escape_unencodable() -> None:
    """Write a character that the encoding of the output lacks as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def format_number(value: float) -> str:
    """Return a positive number with about three digits, without an exponent."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the lines of a table: the first column flush left, the others flush right."""
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        text = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        lines.append("  ".join(text).rstrip())
    return "\n".join(lines)


def print_status(text: str) -> None:
    """Print a line on standard error, where it does not mix with results, above any bar there."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)  # noqa: T201  # the purpose of this function
    if sys.stderr is not None:
        sys.stderr.flush()


def progress_bar(
    items: Iterable[Any] | None = None,
    description: str | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str = "it",
    scaled: bool = False,
    shown: bool | None = None,
    kept: bool = False,
    form: str | None = None,
) -> Any:
    """Return a progress bar on standard error.

    Parameters
    ----------
    items : iterable, optional
        Items that the bar yields and counts; without it, call ``bar.update(n)``.
    description : str, optional
        Text before the bar.
    total : int, optional
        Number of items, if ``items`` has no length.
    initial : int
        Number of items done before.
    unit : str
        Name of the items.
    scaled : bool
        Whether to show large numbers with k, M and so on.
    shown : bool, optional
        Whether to show the bar; by default only if standard error is a terminal.
    kept : bool
        Whether the bar stays on the screen when it is done.
    form : str, optional
        The parts of the bar, as tqdm's ``bar_format``.

    Returns
    -------
    tqdm.tqdm
        The bar, a context manager.
    """
    from tqdm import tqdm

    return tqdm(
        items,
        description,
        total,
        initial=initial,
        unit=unit,
        unit_scale=scaled,
        disable=None if shown is None else not shown,
        leave=kept,
        file=sys.stderr,
        dynamic_ncols=True,
        bar_format=form,
    )


def with_progress(items: Collection[T], unit: str, describe: Callable[[T], str]) -> Iterator[T]:
    """Yield items behind a progress bar, which shows the description of the current one.

    Parameters
    ----------
    items : collection
        The items.
    unit : str
        Name of the items.
    describe : callable
        Maps an item to its description.
    """
    with progress_bar(items, unit=unit) as bar:
        for item in bar:
            bar.set_description(describe(item))
            yield item
