"""The command itself: what ``--help`` imports and prints, and what wrong options do."""

from __future__ import annotations

import importlib
import logging
import re
import subprocess
import sys

import numpy as np
import pytest

from fffcpu.cli import COMMANDS, main

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
        (["train", "x", "--out", "y", "--epoch", "3"], "train", "arguments: --epoch 3"),
        (["train", "x", "--out=y", "--epoch=3"], "train", "arguments: --epoch=3"),
        (["info", "x", "--js"], "info", "unrecognized arguments: --js"),
        (["info", "--nonsense", "x"], "info", "unrecognized arguments: --nonsense"),
        (["info", "x", "y"], "info", "unrecognized arguments: y"),
        (["--traceback", "info", "x", "--trace"], "info", "unrecognized arguments: --trace"),
        (["--trace", "info", "x"], None, "unrecognized arguments: --trace"),
        (["--vers"], None, "the following arguments are required: COMMAND"),
        (["bench", "--depth", "deep"], "bench", "argument --depth: invalid int value: 'deep'"),
        (
            ["--log-level", "loud", "info", "x"],
            None,
            "argument --log-level: invalid choice: 'loud'",
        ),
        (["--log-level", "info"], None, "the following arguments are required: COMMAND"),
        (["info", "x", "--log-level", "info"], "info", "unrecognized arguments: --log-level info"),
        (["destroy", "--all"], None, "argument COMMAND: invalid choice: 'destroy'"),
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
