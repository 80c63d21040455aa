"""Every benchmark that can be run explains itself, with each of its commands and options."""

from __future__ import annotations

import ast
import importlib
import io
import re
import sys
from pathlib import Path

import pytest

from benchmarks.command import new_parser
from tests.support.benchmarks import RUNNABLE
from tests.support.paths import ROOT
from tests.support.processes import run_module

COMMANDS = [
    *(
        (module, command)
        for module in ("benchmarks.crossover", "benchmarks.accuracy.worth")
        for command in ("train", "time", "show")
    ),
    *(("benchmarks.accuracy.learning", command) for command in ("train", "show")),
    *(("benchmarks.accuracy.distillation", command) for command in ("quality", "time", "show")),
    *(
        ("benchmarks.accuracy.paper_tables", command)
        for command in ("table1", "trees", "methods", "choose", "speed")
    ),
]


def unexplained(text: str) -> list[str]:
    """Options and arguments in a help text that have no explanation."""
    lines = text.splitlines()
    found = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r"  [-\w]", line) and not line.startswith("  python"):
            explained = re.search(r"\S  +\S", line) or re.match(r" {4}( {16,})?\S", following)
            found += [] if explained else [line.strip()]
    return found


def file_of(module: str) -> Path:
    """The file that ``python -m`` runs."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def test_options_without_an_explanation_are_found():
    text = "options:\n  --a A  how many\n  --long LONG\n                        what for\n  --b B\n"
    assert unexplained(text) == ["--b B"]


@pytest.mark.parametrize("module", RUNNABLE)
def test_a_benchmark_explains_itself(module):
    done = run_module(module, "--help", COLUMNS="100")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module} ")
    docstring = ast.get_docstring(ast.parse(file_of(module).read_text(encoding="utf-8")))
    assert docstring in done.stdout
    assert f"    python -m {module}" in docstring
    options = done.stdout.partition(docstring)[2]
    assert "  -h, --help" in options
    assert unexplained(options) == []


@pytest.mark.parametrize(("module", "command"), COMMANDS)
def test_a_command_of_a_benchmark_explains_itself(module, command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, command, "--help"])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        importlib.import_module(f"{module}.__main__").main()
    text = capsys.readouterr().out
    assert text.startswith("usage: ")
    assert unexplained(text) == []


def test_every_module_with_a_parser_can_be_run():
    folder = ROOT / "benchmarks"
    shared = {"command.py", "data/files.py", "speed/session.py", "accuracy/text_runs.py"}
    parsers = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if "_parser(" in path.read_text(encoding="utf-8")
    }
    files = {file_of(module).relative_to(folder).as_posix() for module in RUNNABLE}
    assert parsers - shared <= files


def test_results_can_be_printed_in_any_encoding(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    new_parser("a benchmark")
    print("1.5 \u00b1 2%", flush=True)
    assert stream.buffer.getvalue() == b"1.5 \\xb1 2%\n"
