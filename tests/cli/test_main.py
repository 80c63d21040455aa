"""The command itself: what ``--help`` imports and prints, and what wrong options do."""

from __future__ import annotations

import importlib
import io
import json
import logging
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.cli import COMMANDS, info, main
from fffcpu.cli.support.results import print_json
from fffcpu.system.terminal import escape_unencodable, print_status, progress_bar

HEAVY = {"numba", "llvmlite", "scipy", "sklearn", "tqdm", "safetensors", "tokenizers", "matplotlib"}

MODULES = """
import sys
from fffcpu.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""


def imported(*argv):
    """The modules that a command imports, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *argv], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split()), done.stdout


def own(modules):
    return {name for name in modules if name.split(".")[0] == "fffcpu"}


def test_help_imports_what_it_prints():
    modules, printed = imported("--help")
    assert len(own(modules)) <= 60
    assert not HEAVY & modules
    commands = {f"fffcpu.cli.{command.module}" for command in COMMANDS.values()}
    assert not commands & modules
    for name, command in COMMANDS.items():
        assert re.search(rf"^    {name} +{re.escape(command.summary)}$", printed, re.M)
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize("name", ["info", "fill-mask", "train"])
def test_help_of_a_command_imports_no_other(name):
    modules, printed = imported(name, "--help")
    assert printed.startswith(f"usage: fffcpu {name} ")
    commands = {f"fffcpu.cli.{command.module}" for command in COMMANDS.values()}
    assert commands & modules == {f"fffcpu.cli.{COMMANDS[name].module}"}
    assert not HEAVY & modules


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_parts_and_its_help(name, capsys):
    module = importlib.import_module(f"fffcpu.cli.{COMMANDS[name].module}")
    assert {"DESCRIPTION", "add_arguments", "run"} <= set(module.__all__)
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: fffcpu {name} ")
    assert module.DESCRIPTION.splitlines()[0] in printed
    assert "\nexamples:\n" in printed
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize(
    ("argv", "usage", "message"),
    [
        (
            ["train", "x", "--out", "y", "--epoch", "3"],
            "train",
            "unrecognized arguments: --epoch; did you mean '--epochs'?",
        ),
        (["train", "x", "--out=y", "--epoch=3"], "train", "--epoch=3; did you mean '--epochs'?"),
        # Before what else is wrong: required options that are missing, or a wrong value.
        (["train", "x", "--epoch", "3"], "train", "--epoch; did you mean '--epochs'?"),
        (["finetune", "--epoch=x", "--lr", "x"], "finetune", "did you mean '--epochs'?"),
        (["info", "x", "--js"], "info", "unrecognized arguments: --js; did you mean '--json'?"),
        (["classify", "m", "x", "-o", "y"], "classify", "unrecognized arguments: -o y"),
        (["info", "--nonsense", "x"], "info", "unrecognized arguments: --nonsense"),
        (["info", "x", "y"], "info", "unrecognized arguments: y"),
        (["--traceback", "info", "x", "--trace"], "info", "unrecognized arguments: --trace"),
        (["--trace", "info", "x"], None, "unrecognized arguments: --trace"),
        (["--vers"], None, "unrecognized arguments: --vers; did you mean '--version'?"),
        ([], None, "the following arguments are required: COMMAND"),
        (["--vers", "trian"], None, "unrecognized arguments: --vers"),
        (["trian", "x"], None, "invalid choice: 'trian'; did you mean 'train'?"),
        (["bench", "--depth", "deep"], "bench", "argument --depth: invalid int value: 'deep'"),
        (
            ["--log-level", "loud", "info", "x"],
            None,
            "argument --log-level: invalid choice: 'loud'",
        ),
        (["--log-level", "info"], None, "the following arguments are required: COMMAND"),
        (["info", "x", "--log-level", "info"], "info", "unrecognized arguments: --log-level"),
        (
            ["destroy", "--all"],
            None,
            "argument COMMAND: invalid choice: 'destroy' (choose from demo, train,",
        ),
    ],
)
def test_a_wrong_option_prints_the_usage_of_its_command(argv, usage, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"usage: fffcpu {usage} " if usage else "usage: fffcpu [-h]")
    assert f"fffcpu {usage}: error: " in err if usage else "\nfffcpu: error: " in err
    assert message in err.splitlines()[-1]


def test_a_warning_is_a_line_without_the_place_in_the_sources(monkeypatch, capsys):
    usual = warnings.formatwarning

    class Module:
        DESCRIPTION = "a command"

        @staticmethod
        def add_arguments(parser):
            pass

        @staticmethod
        def run(options):
            print(warnings.formatwarning("two\nlines", UserWarning, __file__, 1), end="")

    monkeypatch.setitem(sys.modules, "fffcpu.cli.info", Module)
    assert main(["info"]) == 0
    assert capsys.readouterr().out == "fffcpu: warning: two lines\n"
    assert warnings.formatwarning is usual


def test_what_looks_like_an_option_may_be_an_argument(capsys):
    assert main(["info", "--", "--absent"]) == 1
    assert "No such file or directory: '--absent'" in capsys.readouterr().err


# --- Encodings of the output ----------------------------------------------------------------------


def ascii_output(monkeypatch):
    """Make standard output and error ASCII, which fail elsewhere; return what reads them."""
    streams = {}
    for name in ("stdout", "stderr"):
        streams[name] = io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict")
        monkeypatch.setattr(sys, name, streams[name])

    def printed(name):
        streams[name].flush()
        return streams[name].buffer.getvalue().decode("ascii")

    return printed


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_can_be_printed_in_any_encoding(name, monkeypatch):
    printed = ascii_output(monkeypatch)
    with pytest.raises(SystemExit) as caught:
        main(["--help"] if name is None else [name, "--help"])
    assert caught.value.code == 0
    assert printed("stdout").startswith("usage: fffcpu ")


def test_results_errors_and_bars_can_be_printed_in_any_encoding(monkeypatch, tmp_path):
    printed = ascii_output(monkeypatch)
    path = tmp_path / "caf\u00e9.safetensors"
    FastFeedForward(3, 2, 1, rng=0).save(path)
    assert main(["info", str(path)]) == 0
    assert r"caf\xe9.safetensors" in printed("stdout")
    with progress_bar(total=3, description="\u00b5", unit="\u00b5s", shown=True) as bar:
        bar.update(2)
        print_status("\u2028 \ud800")
    assert main(["info", str(tmp_path / "\u2588")]) == 1
    told = printed("stderr")
    assert r"\xb5" in told
    assert r"\u2028 \ud800" in told
    assert told.endswith("\\u2588'\n")


def test_json_keeps_its_meaning_in_any_encoding(monkeypatch):
    printed = ascii_output(monkeypatch)
    escape_unencodable()
    report = {"text": "caf\u00e9 \u2028 \U0001f600", "path": r"\xe9"}
    print_json(report)
    assert json.loads(printed("stdout")) == report


def test_json_is_readable_where_it_can_be(capsys):
    print_json("caf\u00e9")
    assert capsys.readouterr().out == '"caf\u00e9"\n'


def test_output_may_be_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["info", "absent"]) == 1


def test_no_message_of_a_codec_is_an_error_by_itself(monkeypatch, capsys):
    def run(options):
        "\ud800".encode()

    monkeypatch.setattr(info, "run", run)
    assert main(["info", "x"]) == 1
    expected = "fffcpu: error: a text has characters that cannot be read or written here ("
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize("options", [["--log-level", "debug"], ["--log-level=debug"], []])
def test_the_log_goes_to_standard_error_and_only_if_it_is_asked_for(options, tmp_path, capsys):
    np.savez(tmp_path / "table.npz", x=np.eye(6), y=[0, 1] * 3)
    arguments = ["train", str(tmp_path / "table.npz"), "--out", str(tmp_path / "model")]
    logger = logging.getLogger("fffcpu")
    before = list(logger.handlers), logger.level
    assert main([*options, *arguments, "--epochs", "1", "--depth", "1", "--validation", "0"]) == 0
    assert (list(logger.handlers), logger.level) == before
    out, err = capsys.readouterr()
    told = [line for line in err.splitlines() if line.startswith(("INFO fffcpu.", "DEBUG fffcpu."))]
    assert bool(told) == bool(options)
    assert ("training on <Table: 6 rows, 6 features, 2 classes>" in err) == bool(options)
    assert "fffcpu.training" not in out


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [(Terminal, [], 1), (io.StringIO, [], 0), (Terminal, ["--log-level", "info"], 0)],
)
def test_a_terminal_is_told_once_that_kernels_are_compiled(kind, options, expected, monkeypatch):
    from fffcpu.kernels._numba.cache import COMPILING

    logger = logging.getLogger("fffcpu.kernels._numba.cache")
    before = list(logger.handlers), logger.level

    def run(_):
        for name in ("first", "second"):
            logger.debug(COMPILING, name)
            logger.debug("read %s from %s", name, "here")

    monkeypatch.setattr(info, "run", run)
    monkeypatch.setattr(sys, "stderr", kind())
    assert main([*options, "info", "x"]) == 0
    assert sys.stderr.getvalue().count("compiling kernels") == expected
    assert (list(logger.handlers), logger.level) == before
