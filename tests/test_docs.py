"""The code in the README and the docs runs, and what pages and docstrings name exists."""

from __future__ import annotations

import argparse
import gzip
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import fffcpu
from fffcpu import FastFeedForward
from fffcpu.benchmarking import timing
from fffcpu.cli import COMMANDS, _parse
from fffcpu.errors import MissingExtraError
from fffcpu.models import BertConfig, BertEncoder
from fffcpu.system.pool import POOL
from fffcpu.text import Tokenizer
from tests.serve.test_running import running
from tests.support.benchmarks import RUNNABLE
from tests.support.paths import PACKAGE, ROOT

GALLERY = sorted((ROOT / "docs/gallery").glob("plot_*.py"))

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("fffcpu", "tests", "benchmarks", "docs/gallery")
    for path in (ROOT / folder).rglob("*.py")
)

PACKAGES = ("fffcpu", "tests", "benchmarks")

OTHER_KEYS = {"fffcpu.predictor", "fffcpu.routes"}
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
    "page",
    [
        "docs/commands.md",
        "docs/distillation.md",
        "docs/onnx.md",
        "docs/table_tutorial.md",
        "docs/text_tutorial.md",
    ],
)
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch, command):
    """Commands run in this process, which spares each of them the start of an interpreter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(POOL, "threads", POOL.threads)  # --threads ends with the command
    monkeypatch.setattr(timing, "REST", 0.0)  # no figure is read
    write_tables(tmp_path)
    write_bert(tmp_path / "minilm")
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


def write_tables(folder):
    """A few rows with the columns of the tables that the table tutorial names."""
    rng = np.random.default_rng(0)
    lines = ["carat,cut,color,clarity,depth,table,price,x,y,z"]
    for carat in rng.uniform(0.2, 3, 60).round(2).tolist():
        texts = f"{rng.choice(['Ideal', 'Fair'])},{rng.choice(list('DEFG'))},SI{rng.integers(1, 3)}"
        lines.append(f"{carat},{texts},61.5,55,{int(5000 * carat)},{carat},{carat},{carat}")
    (folder / "diamonds.csv").write_text("\n".join(lines))
    lines = ["month,dep_delay,arr_delay,carrier,tailnum,time_hour"]
    for k, delay in enumerate(rng.integers(-20, 200, 60).tolist()):
        arrival = "NA" if k % 9 == 0 else delay - 5
        carrier, hour = "UA" if k % 2 else "AA", f"2013-01-{k % 28 + 1:02}T10:00:00Z"
        lines.append(f"1,{delay},{arrival},{carrier},N{k % 12},{hour}")
    (folder / "flights.csv").write_text("\n".join(lines))


def write_bert(folder):
    """A folder in the form of those of sentence-transformers, with a small encoder."""
    tokenizer = Tokenizer.train(["a good film", "a bad fern near the road"] * 2, vocabulary=90)
    config = BertConfig(tokenizer.vocabulary, 8, 1, 2, feedforward_size=6, positions=32)
    files = {"tokenizer.json": tokenizer.to_json()}
    BertEncoder(config, rng=0).save_pretrained(folder, files=files)


def reviews(rows):
    """Texts with labels, as a CSV file."""
    lines = (f"a {('good', 'bad')[k % 2]} film number {k},{('pos', 'neg')[k % 2]}\n" for k in rows)
    return f"text,label\n{''.join(lines)}"


def write_data(folder):
    """The files that the README's commands read."""
    rng = np.random.default_rng(0)
    rooms, areas = rng.integers(1, 9, 80), rng.uniform(20, 200, 80)
    rows = [f"{room},{area:.2f}" for room, area in zip(rooms, areas, strict=True)]
    prices = 1000 * areas + 5000 * rooms + 0.5
    priced = [f"{row},{price:.1f}" for row, price in zip(rows, prices, strict=True)]
    (folder / "houses.csv").write_text("rooms,area,price\n" + "\n".join(priced))
    (folder / "new.csv").write_text("rooms,area\n" + "\n".join(rows))
    (folder / "books").mkdir()
    for k in range(24):
        (folder / "books" / f"{k}.txt").write_text(f"book {k} tells of a good and a bad film " * 30)
    (folder / "reviews.csv").write_text(reviews(range(12)))
    (folder / "new.txt").write_text("a good film\na bad film\n")


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    lines = [words for language, words in steps("README.md") if language == "console"]
    train, predict, serve, curl = [words for words in lines if words[0] != "pip"]
    for words in (train, predict):
        assert words[0] == "fffcpu"
        status, _, err = command(*words[1:])
        assert status == 0, (words, err)
    assert len(Path("prices.csv").read_text().splitlines()) == 81
    assert serve[:2] == ["fffcpu", "serve"]
    assert serve[-1] == "&"
    with running(*serve[2:-1]) as server:
        server.wait_for("ready")
        _, address, _, body = curl
        address = address.replace("localhost:8000", f"http://localhost:{server.port}")
        with urllib.request.urlopen(address, body.encode()) as answer:
            (prediction,) = json.load(answer)["outputs"]
    assert prediction["name"] == "prediction"
    assert 5e4 < prediction["data"][0] < 2e5


def test_the_badges_say_what_the_package_is():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    badges = {
        "version": fffcpu.__version__.partition(".dev")[0],
        "python": project["requires-python"].removeprefix(">=") + "+",
        "licence": project["license"],
    }
    for name, text in badges.items():
        assert f">{text}<" in (ROOT / "docs" / "badges" / f"{name}.svg").read_text()
        assert f"docs/badges/{name}.svg" in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_assembly_can_be_printed_as_the_notes_say(tmp_path):
    (program,) = re.findall(
        r"^\$ (NUMBA_CACHE_DIR=.*?inspect_asm.*?\")$",
        (ROOT / "docs/kernel_notes.md").read_text(),
        re.M | re.S,
    )
    done = subprocess.run(
        ["bash", "-c", program.replace(" python ", f" {shlex.quote(sys.executable)} ")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ret" in done.stdout


# --- Commands that would take too long here, or need what is not here -----------------------------

RUN = {
    "README.md": "test_the_commands_of_the_readme_run",
    "docs/commands.md": "test_the_commands_of_a_page_run",
    "docs/distillation.md": "test_the_commands_of_a_page_run",
    "docs/first_kernel.md": "tests/testing/test_first_kernel.py",
    "docs/kernel_notes.md": "test_the_assembly_can_be_printed_as_the_notes_say",
    "docs/onnx.md": "test_the_commands_of_a_page_run",
    "docs/table_tutorial.md": "test_the_commands_of_a_page_run",
    "docs/text_tutorial.md": "test_the_commands_of_a_page_run",
}
"""Pages whose commands run as printed, and what runs them."""

ELSEWHERE = (
    r"pip install |python3(\.11)? -m venv |\. \.venv/|\.venv-oldest/",  # `.ci/run` installs
    r"pytest -p fffcpu\.testing\.plugin --pyargs fffcpu\.testing --kernel \w+$",  # first kernel
    r"NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 pytest --kernel cuda ",  # backends/test_cuda.py
    r"curl localhost:8000/",  # serve/test_documentation.py
)
"""Commands of the other pages that other tests run, or `.ci/run` does."""


def commands_on(page):
    """The lines of commands on a page."""
    text = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    return [line[2:] for line in text.splitlines() if line.startswith("$ ")]


def examples_in_help(name):
    """The commands that the help of a command shows, without comments and pipes."""
    module = importlib.import_module(f"fffcpu.cli.{COMMANDS[name].module}")
    text = re.sub(r" *\\?\n {4,}(?=--)", " ", module.DESCRIPTION)  # a long one goes on below
    for line in re.findall(r"^  (?:.*\| )?(fffcpu .*)$", text, re.M):
        yield re.split(r"  +| [<>] ", line)[0].strip()


def assert_parsed(line):
    """Fail unless the command line is one that the command takes."""
    try:
        _parse(shlex.split(line)[1:])
    except SystemExit:
        pytest.fail(f"not a command of fffcpu: {line}")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_help_are_commands(name):
    lines = list(examples_in_help(name))
    assert len(lines) > 1
    for line in lines:
        assert_parsed(line)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN])
def test_a_command_that_does_not_run_here_is_known_to_what_runs_it(page, monkeypatch):
    for line in commands_on(page):
        if line.startswith("fffcpu "):
            assert_parsed(line.removesuffix(" OPTIONS").removesuffix(" &"))
        elif "python -m benchmarks" in line:
            assert_a_benchmark_takes(line, monkeypatch)
        else:
            assert any(re.match(pattern, line) for pattern in ELSEWHERE), line


class Parsed(Exception):  # noqa: N818  # it is raised where a benchmark would begin
    """The options of a benchmark are right."""


def assert_a_benchmark_takes(line, monkeypatch):
    """Fail unless a benchmark's parser takes the words of a command line."""
    words = shlex.split(line)
    module, *options = words[words.index("-m") + 1 :]
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(parser, arguments=None, namespace=None):
        raise Parsed(parse(parser, arguments, namespace))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
        patch.setattr(sys, "argv", [module, *options])
        package = importlib.util.find_spec(module).submodule_search_locations is not None
        found = importlib.import_module(f"{module}.__main__" if package else module)
        with pytest.raises(Parsed):
            found.main()


def test_commands_that_are_wrong_are_found(monkeypatch):
    with pytest.raises(pytest.fail.Exception, match="not a command"):
        assert_parsed("fffcpu train x.csv --epoch 3")
    with pytest.raises(SystemExit):
        assert_a_benchmark_takes("python -m benchmarks.speed.rows --repeat 3 --no", monkeypatch)


@pytest.mark.slow
def test_the_code_of_the_formats_runs(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    FastFeedForward(8, 8, 11, rng=0).save("own.safetensors")
    argv = ("convert", "own.safetensors", "layer.safetensors", "--to", "ultrafastbert")
    assert command(*argv)[0] == 0
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6) % 2
    np.save("x.npy", x)
    np.save("y.npy", y)
    np.savez("data.npz", x=x, labels=y)
    images, labels = (("train-images-idx3-ubyte.gz", x), ("train-labels-idx1-ubyte.gz", y))
    for (name, array), axes in ((images, (6, 2, 1)), (labels, (6,))):
        shape = b"".join(number.to_bytes(4) for number in axes)
        head = bytes([0, 0, 8, len(axes)]) + shape
        Path(name).write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))
    code = [block for block in blocks("docs/formats.md") if "import torch" not in block]
    assert len(code) == 2
    for block in code:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


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


def without_code(text):
    """A page without its fenced blocks; a link is its text, and inline code one word."""
    text = re.sub(r"^```.*?^```\n", "", text, flags=re.M | re.S)
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"`[^`]*`", "code", text)


def sentences(text):
    """The sentences of a page's paragraphs and lists; headings and tables are none."""
    lines = [line for line in without_code(text).splitlines() if not re.match(r"[#|<]", line)]
    for paragraph in re.split(r"\n(?:\s*\n)+|\n(?=\s*(?:[-*]|\d+\.) )", "\n".join(lines)):
        yield from filter(None, re.split(r"(?<=[.!?])[*_\"')]*\s+", paragraph.strip()))


def test_sentences_are_found():
    text = (
        "# A title\n\nOne `a b. c`\n[two](three). Four!\n\n```\nno\n```\n- five\n- six\n\n| no |\n"
    )
    assert list(sentences(text)) == ["One code\ntwo.", "Four!", "- five", "- six"]


def test_the_readme_is_short_and_so_are_its_sentences():
    text = (ROOT / "README.md").read_text()
    assert [sentence for sentence in sentences(text) if len(sentence.split()) > 25] == []
    words = re.findall(r"\w[\w'-]*", without_code(text))
    assert len(words) <= 700


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
            try:
                importlib.import_module(module)
            except MissingExtraError:
                return True  # checked where the extra is installed
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
