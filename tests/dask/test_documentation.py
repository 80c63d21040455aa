"""The page "Beyond one process": its commands, its code and its recipes for other engines run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.serve.test_documentation import write_flowers
from tests.support.paths import PACKAGE, ROOT

PAGE = (ROOT / "docs" / "dask.md").read_text(encoding="utf-8")

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def block_with(words):
    """The one block of Python that has these words."""
    (found,) = (block for block in blocks("python") if words in block)
    return found


def commands():
    """The commands of the page, without those that install."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line[2:]) for line in lines if line.startswith("$ fffcpu ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the table and the model of the page."""
    made = tmp_path_factory.mktemp("page")
    write_flowers(made)
    first, *_ = commands()
    assert first[1] == "train"
    subprocess.run([sys.executable, "-m", *first], cwd=made, check=True)
    return made


def output_of(code, folder, **variables):
    """What a program prints, in a process of its own: others import it."""
    path = folder / "program.py"
    path.write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **variables}
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_of_the_page_run(folder):
    _, *others = commands()
    assert [words[1] for words in others] == ["train", "predict"]
    for words in others:
        subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True)
    assert len((folder / "labels.csv").read_text().splitlines()) == 151


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dd.read_csv", r"dask\.array<.*\n\['setosa', 'virginica'\]"),
        ("FitSettings(shards=4", r"'accuracy': 0\.[89]\d*\} True"),
        ("GridSearchCV", r"\{'depth': \d\} 0\.\d+"),
        ("ThreadPoolExecutor", r"50 \["),
    ],
)
def test_the_code_of_the_page_runs(words, expected, folder):
    assert re.search(expected, output_of(block_with(words), folder))


def test_ray_labels_flowers(folder):
    pytest.importorskip("ray", reason="Ray is not installed")
    assert "'label': 'setosa'" in output_of(block_with("import ray"), folder)


def test_spark_labels_flowers(folder):
    pytest.importorskip("pyspark", reason="Spark is not installed")
    if not shutil.which("java"):
        pytest.skip("there is no Java")
    assert "|setosa|" in output_of(block_with("pyspark"), folder).replace(" ", "")


def test_every_block_of_the_page_is_tested():
    assert len(blocks("python")) == 6
