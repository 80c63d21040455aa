"""The code in the README and the docs runs, in the order of each page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from fffcpu.cli import COMMANDS
from tests.support.benchmarks import RUNNABLE
from tests.support.paths import ROOT

GALLERY = sorted((ROOT / "docs/gallery").glob("plot_*.py"))

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def blocks(page, language="python"):
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["README.md", "docs/tutorial.md", "docs/index.md", "docs/sklearn.md"]
)
def test_the_code_of_a_page_runs(page, tmp_path):
    code = "\n".join(blocks(page))
    assert code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accuracies = re.findall(r"^(?:test accuracy )?(0\.\d+)", done.stdout, re.M)
    assert bool(accuracies) == ("accuracy" in code)
    assert all(float(accuracy) > 0.8 for accuracy in accuracies), done.stdout


def run_page(page, folder):
    """Run the blocks of a page, Python and commands, in their order."""
    for language, block in re.findall(
        r"^```(python|console)\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S
    ):
        lines = block.replace("\\\n", " ").splitlines()
        commands = [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]
        for command in [["-c", block]] if language == "python" else commands:
            if language == "console":
                assert command[0] == "fffcpu", command
                command = ["-m", *command]
            yield (
                command,
                subprocess.run(
                    [sys.executable, *command],
                    cwd=folder,
                    env={**os.environ, "MPLBACKEND": "agg"},
                    capture_output=True,
                    text=True,
                    check=False,
                ),
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["docs/table_tutorial.md", "docs/text_tutorial.md", "docs/commands.md"]
)
def test_the_commands_of_a_page_run(page, tmp_path):
    for command, done in run_page(page, tmp_path):
        assert done.returncode == 0, (command, done.stderr)
        assert "Traceback" not in done.stderr
        accuracies = re.findall(r"^(?:test .*|accuracy )(0\.\d+)$", done.stdout, re.M)
        assert all(float(accuracy) > 0.8 for accuracy in accuracies), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", GALLERY, ids=lambda script: script.stem)
def test_the_scripts_of_the_gallery_run(script, tmp_path):
    # Without a window to show figures in, Matplotlib says so where a display could be there.
    warnings = ["-W", "error", "-W", "ignore:FigureCanvasAgg is non-interactive:UserWarning"]
    done = subprocess.run(
        [sys.executable, *warnings, str(script)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accuracies = re.findall(r"accuracy (0\.\d+)", done.stdout)
    assert all(float(accuracy) > 0.6 for accuracy in accuracies), done.stdout


def test_every_script_of_the_gallery_is_a_lesson():
    # Sphinx-gallery runs what is named plot_*, and only copies the rest.
    assert sorted((ROOT / "docs/gallery").glob("*.py")) == GALLERY
    for script in GALLERY:
        text = script.read_text()
        title, line = text.splitlines()[1:3]
        assert text.startswith('"""\n')
        assert line == "=" * len(title)
        assert "plt.show()" in text


def test_every_command_has_its_section_and_every_section_its_command():
    sections = re.findall(r"^## (.*)$", (ROOT / "docs/commands.md").read_text(), re.M)
    assert sorted(sections) == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_every_benchmark_that_a_page_names_can_be_run(page):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"python -m (benchmarks[\w.]*\w)", text))
    assert named <= set(RUNNABLE), sorted(named - set(RUNNABLE))
    # A benchmark is a module, not a script.
    assert not re.search(r"python benchmarks/", text)
    files = set(re.findall(r"`(benchmarks/[\w/]+\.py)`", text))
    assert all((ROOT / file).exists() for file in files), sorted(files)


def test_benchmarks_are_named_in_the_docs():
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    assert set(re.findall(r"python -m (benchmarks[\w.]*\w)", text)) == set(RUNNABLE)


@pytest.mark.slow
def test_the_readme_trains_in_fifteen_lines():
    loop = next(block for block in blocks("README.md") if "backward" in block)
    lines = [line for line in loop.splitlines() if line and "import" not in line]
    assert len(lines) <= 15
