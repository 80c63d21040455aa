"""The drawing of the house is true, its top floor is small, and no function takes too much."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import PACKAGE, ROOT
from tests.test_layering import ORDER

MOST_ARGUMENTS = 16
MOST_MODULES = 10

SOURCES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = sorted(path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def drawings():
    """The drawings of the page, as lists of lines."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return [block.splitlines() for block in re.findall(r"^```text\n(.*?)^```", page, re.M | re.S)]


def test_the_drawing_shows_every_room_in_its_order():
    rooms = [line.split()[0] for line in drawings()[0] if line.startswith("   ")]
    assert tuple(reversed(rooms)) == ORDER


def test_the_drawing_of_kernels_shows_every_module():
    lines = [line.split() for line in drawings()[2]]
    drawn = set()
    for name, *others in lines:
        if name.endswith("/"):
            drawn |= {name + module for module in others}
        else:
            drawn.add(name)
    kernels = PACKAGE / "kernels"
    modules = {
        path.relative_to(kernels).with_suffix("").as_posix()
        for path in kernels.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert drawn == modules


def test_every_path_that_the_page_names_exists():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"\b((?:[a-z_]+/)+[a-z_]+\.py)\b", page)
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists() or (PACKAGE / name).exists(), name


def test_few_modules_lie_on_the_top_floor():
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert len(modules) <= MOST_MODULES, sorted(modules)


@pytest.mark.parametrize(
    "path", PACKAGES, ids=lambda path: path.parent.relative_to(PACKAGE).as_posix()
)
def test_a_package_says_in_a_sentence_what_lives_there(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text
    assert re.fullmatch(r"[^\n]+\.", text.split("\n\n")[0])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_function_but_a_constructor_takes_many_arguments(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
            given = node.args
            count = len(given.posonlyargs + given.args + given.kwonlyargs)
            count += (given.vararg is not None) + (given.kwarg is not None)
            assert count <= MOST_ARGUMENTS, f"{node.name} takes {count}"
