"""Tables, messages and progress bars of a terminal."""

from __future__ import annotations

import pytest

from fffcpu.system.terminal import (
    format_number,
    format_table,
    print_status,
    progress_bar,
    with_progress,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)
def test_numbers_have_about_three_digits(value, text):
    assert format_number(value) == text


def test_columns_stand_below_each_other():
    table = format_table(("name", "rows"), [("a", "1,000"), ("longer", "2")])
    assert [line.rstrip() for line in table.splitlines()] == [
        "name     rows",
        "a       1,000",
        "longer      2",
    ]


def test_status_goes_to_standard_error(capsys):
    print_status("reading")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "reading\n")


def test_a_bar_is_hidden_where_there_is_no_terminal(capsys):
    assert list(progress_bar([1, 2, 3], "rows")) == [1, 2, 3]
    with progress_bar(total=10, unit="row") as bar:
        bar.update(4)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_bar_that_is_shown_counts_on_standard_error(capsys):
    with progress_bar(description="rows", total=4, initial=1, shown=True, kept=True) as bar:
        bar.update(3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "rows" in captured.err
    assert "4/4" in captured.err
    assert list(progress_bar(range(3), shown=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_items_come_one_after_the_other_with_their_descriptions(capsys):
    described = []
    items = with_progress([1, 2, 3], "row", lambda item: described.append(item) or f"row {item}")
    for item in items:
        assert described[-1] == item
    assert described == [1, 2, 3]
    assert capsys.readouterr().err == ""
