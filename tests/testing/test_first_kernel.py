"""The page "Your first kernel", from its first step to its last, in a folder of its own.

Files are saved, lines are changed and commands are run as the page says, and commands must print
what the page prints. So the kernels of the page pass the whole suite, as printed.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.suite import SUITE, clean_environment

PAGE = (ROOT / "docs" / "first_kernel.md").read_text(encoding="utf-8")

STEP = re.compile(
    r"`(?P<file>\w+\.py)`:\n\n```python\n(?P<source>.*?)^```"
    r"|[Cc]hange\s`(?P<old>[^`]+)`\sto\s`(?P<new>[^`]+)`\sin\s`(?P<changed>\w+\.py)`"
    r"|^```console\n(?P<session>.*?)^```",
    re.M | re.S,
)
"""A file to save, a line to change in one, or a command with what it prints."""


def numbers_hidden(text):
    """Times and ratios differ from run to run."""
    text = re.sub(r" in [\d.]+s( \([\d:]+\))?", " in a while", text)
    return re.sub(r"\s+\d+\.\d µs|^\d+ times", " some", text, flags=re.M)


def run(line, folder):
    """Run a command line, with Python as the program or as what pytest runs on."""
    words = shlex.split(line)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program, *arguments = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    # As the command does, Python leaves the folder out of the path of modules.
    start = {"pytest": ["-P", "-m", "pytest", "-p", "no:cacheprovider"], "python": []}[program]
    done = subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=folder,
        env=clean_environment(COLUMNS="80", PYTHONIOENCODING="utf-8", **variables),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return done.stdout + done.stderr


def assert_printed(expected, output):
    """Assert that the lines of the page are among those printed, in their order."""
    printed = iter(numbers_hidden(output).splitlines())
    for line in numbers_hidden(expected).splitlines():
        assert line in printed, f"not printed: {line}\n\n{output}"


@pytest.mark.slow
@pytest.mark.thorough
def test_the_page_does_what_it_says(tmp_path):
    commands = 0
    for step in STEP.finditer(PAGE):
        if step["file"]:
            (tmp_path / step["file"]).write_text(step["source"], encoding="utf-8")
        elif step["old"]:
            path = tmp_path / step["changed"]
            source = path.read_text(encoding="utf-8")
            assert source.count(step["old"]) == 1, step["old"]
            path.write_text(source.replace(step["old"], step["new"]), encoding="utf-8")
        else:
            command, _, expected = step["session"].partition("\n")
            assert_printed(expected, run(command.removeprefix("$ "), tmp_path))
            commands += 1
    assert commands == PAGE.count("\n$ ") == 6
    assert sorted(path.name for path in tmp_path.glob("*.py")) == [
        "fast_kernels.py",
        "measure.py",
        "my_kernels.py",
    ]


def test_the_page_runs_the_whole_suite_on_both_kernels():
    for kernel in ("my_kernels", "fast_kernels"):
        assert f"$ pytest -q {' '.join(SUITE)} --kernel {kernel}\n" in PAGE
