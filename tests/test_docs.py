"""The code in the README and the docs runs, and what pages and docstrings name exists."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys

import pytest

from fffcpu.cli import COMMANDS
from fffcpu.system.pool import POOL
from tests.support.benchmarks import RUNNABLE
from tests.support.paths import ROOT

GALLERY = sorted((ROOT / "docs/gallery").glob("plot_*.py"))

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("fffcpu", "tests", "benchmarks", "docs/gallery")
    for path in (ROOT / folder).rglob("*.py")
)

PACKAGES = ("fffcpu", "tests", "benchmarks")

OTHER_KEYS = {"fffcpu.predictor"}
"""Dotted names that are not Python's: keys in the metadata of files."""


def blocks(page, language="python"):
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/tutorial.md", "docs/index.md", "docs/sklearn.md", "docs/watching_runs.md"],
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


def steps(page):
    """The blocks of Python of a page, and its commands, in their order: language and words."""
    for language, block in re.findall(
        r"^```(python|console)\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S
    ):
        if language == "python":
            yield language, block
        else:
            lines = block.replace("\\\n", " ").splitlines()
            yield from (("console", shlex.split(line[2:])) for line in lines if line[:2] == "$ ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["docs/table_tutorial.md", "docs/text_tutorial.md", "docs/commands.md"]
)
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch, command):
    """Commands run in this process, which spares each of them the start of an interpreter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(POOL, "threads", POOL.threads)  # --threads ends with the command
    for language, step in steps(page):
        if language == "python":
            done = subprocess.run(
                [sys.executable, "-c", step], capture_output=True, text=True, check=False
            )
            status, out, err = done.returncode, done.stdout, done.stderr
        else:
            assert step[0] == "fffcpu", step
            status, out, err = command(*step[1:])
        assert status == 0, (step, err)
        assert "Traceback" not in err
        accuracies = re.findall(r"^(?:test .*|accuracy )(0\.\d+)$", out, re.M)
        assert all(float(accuracy) > 0.8 for accuracy in accuracies), out


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


def exists(name):
    """Whether a dotted name is a module, or an attribute that a chain from a module leads to."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], start=2):
        module = ".".join(parts[:number])
        # An attribute comes first: where a package hands on a name, it hides a module's.
        if not hasattr(found, part):
            if not hasattr(found, "__path__") or importlib.util.find_spec(module) is None:
                return False
            if number == len(parts):
                return True  # not imported: a module may need an extra
            importlib.import_module(module)
        found = getattr(found, part)
    return True


def names_in(text):
    """The dotted names of our packages at the start of text in backticks."""
    return set(re.findall(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?![\w/.])", text))


def paths_in(text):
    """The repository's paths in backticks. A path may be written as seen from the package."""
    folders = [*PACKAGES, "docs", r"\.ci", r"\.github"]
    folders += [path.name for path in (ROOT / "fffcpu").iterdir() if path.is_dir()]
    return set(re.findall(rf"`((?:{'|'.join(folders)})/[\w./-]*)`", text))


def missing_paths(text):
    """The paths in a text that are neither in the repository nor in the package."""
    places = (ROOT, ROOT / "fffcpu")
    return sorted(
        path for path in paths_in(text) if not any((place / path).exists() for place in places)
    )


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/changelog.md"])
def test_names_and_paths_on_a_page_exist(page):
    text = (ROOT / page).read_text()
    assert not sorted(name for name in names_in(text) - OTHER_KEYS if not exists(name))
    assert not missing_paths(text)
    # In the drawings and the tables of a fence, too.
    files = set(re.findall(r"(?<![\w./])((?:fffcpu|tests|benchmarks|docs)/[\w/]+\.\w+)", text))
    assert not sorted(file for file in files if not (ROOT / file).exists())


def test_names_and_paths_in_docstrings_and_comments_exist():
    for source in SOURCES:
        text = (ROOT / source).read_text()
        missing = [name for name in names_in(text) - OTHER_KEYS if not exists(name)]
        files = re.findall(r"(?<![\w./\"'])((?:docs|tests|benchmarks)/[\w/]+\.(?:md|py))\b", text)
        missing += [file for file in files if not (ROOT / file).exists()]
        assert not sorted(missing) + missing_paths(text), source


def test_the_files_of_a_drawing_are_those_of_the_package():
    """The drawing of a call's way on the page of the architecture names files of fffcpu."""
    text = (ROOT / "docs/architecture.md").read_text()
    files = re.findall(r"^   ([\w/]+\.py)\b", text, re.M)
    assert files
    assert all((ROOT / "fffcpu" / file).exists() for file in files), files


def test_the_reference_names_what_exists():
    """Its directives, with the names that their options list."""
    for page in ("docs/api.md", "docs/kernels.md"):
        module, owner = "", ""
        for line in (ROOT / page).read_text().splitlines():
            if found := re.match(r"\.\. currentmodule:: (\S+)", line):
                module = found[1]
            elif found := re.match(r"\.\. auto(?:class|function|module):: (\S+)", line):
                owner = found[1] if found[1].startswith("fffcpu.") else f"{module}.{found[1]}"
                assert exists(owner), f"{page}: {owner}"
            elif found := re.match(r"   :members: (.+)", line):
                for name in found[1].split(", "):
                    assert exists(f"{owner}.{name}"), f"{page}: {owner}.{name}"
            elif found := re.match(r"   (\w+)$", line):
                assert exists(f"{module}.{found[1]}"), f"{page}: {module}.{found[1]}"


def test_the_new_names_of_the_changelog_exist():
    """In its tables of moves, what the last column names."""
    text = (ROOT / "docs/changelog.md").read_text()
    tables = re.findall(r"^\| before \| now \|\n\|[-| ]+\|\n((?:\|.*\n)+)", text, re.M)
    names = names_in(
        "\n".join(row.split(" | ")[-1] for table in tables for row in table.split("\n"))
    )
    assert names
    assert not sorted(name for name in names if not exists(name))


def test_names_that_do_not_exist_are_found():
    # In pieces, so that the test above does not find them here.
    old, gone = f"{PACKAGES[0]}.kernels.pool.run", f"{PACKAGES[1]}/none.py"
    text = f"`fffcpu.kernels.load_backend(name)`, `{old}`, `{gone}`"
    assert [name for name in names_in(text) if not exists(name)] == [old]
    assert exists("fffcpu.layers.FastFeedForward.backward")
    assert not exists("fffcpu.layers.FastFeedForward.none")
    here, nowhere = "kernels/jit.py", f"{'kernels'}/none/"
    assert missing_paths(f"{text}, `{here}`, `{nowhere}`") == [nowhere, gone]
