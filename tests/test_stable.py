"""What docs/stable.md and docs/api.md promise is there: modules, names, versions."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re

import pytest

from fffcpu.errors import MissingExtraError
from tests.support.paths import ROOT
from tests.test_packaging import (
    CONSTRAINTS,
    DEPENDENCIES,
    PROJECT,
    TESTED,
    TESTED_EXTRAS,
    bound,
    requirements,
)

PAGE = (ROOT / "docs/stable.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/api.md").read_text(encoding="utf-8")


def rows_of_table(heading):
    """The cells of each row of the first table after a heading."""
    section = PAGE.partition(f"{heading}\n")[2].partition("\n## ")[0]
    table = re.search(r"^\|.*\n\|[-| ]+\n((?:\|.*\n)+)", section, re.M)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[1].splitlines()]


def public(module):
    """Import a public module; skips where it needs an extra that the tests do not bring."""
    try:
        return importlib.import_module(module)
    except MissingExtraError as error:
        pytest.skip(str(error))


MODULES = [row[0].strip("`") for row in rows_of_table("## Public modules")]


def documented_names(module):
    """Names that the reference describes as members of a module."""
    names, current = set(), None
    for line in REFERENCE.splitlines():
        directive = re.match(
            r"\.\. (currentmodule|automodule|autofunction|autoclass):: (\S+)", line
        )
        if directive is None:
            continue
        kind, name = directive.groups()
        if kind == "currentmodule":
            current = name
        elif kind != "automodule":
            place, _, short = (name if "." in name else f"{current}.{name}").rpartition(".")
            names |= {short} if place == module else set()
    return names


def order_of_names(name):
    """Constants, classes, the rest: the order that ruff keeps in ``__all__``."""
    return 0 if name.isupper() else 1 if name[:1].isupper() else 2, name


def test_the_table_of_modules_is_in_order_and_names_none_twice():
    assert sorted(set(MODULES)) == MODULES
    assert len(MODULES) > 10


@pytest.mark.parametrize("module", MODULES)
def test_public_module_has_the_names_of_its_list(module):
    found = public(module)
    assert sorted(set(found.__all__), key=order_of_names) == found.__all__
    assert [name for name in found.__all__ if not hasattr(found, name)] == []


@pytest.mark.parametrize("module", MODULES)
def test_what_a_public_package_imports_is_on_its_list(module):
    found = public(module)
    tree = ast.parse(inspect.getsource(found))
    imported = {
        alias.asname or alias.name
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("fffcpu")
        for alias in statement.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported - used - set(found.__all__) == set()


@pytest.mark.parametrize("module", MODULES)
def test_the_list_of_a_public_module_is_what_the_reference_describes(module):
    names = set(public(module).__all__)
    assert documented_names(module) <= names
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", REFERENCE)] == []


def test_the_page_names_the_versions_that_are_tested():
    rows = rows_of_table("### Libraries")
    oldest = {row[0].split()[0]: row[1] for row in rows}
    assert oldest == {name: CONSTRAINTS[name] for name in oldest}
    optional = {
        f"{name} (`{extra}`)"
        for extra in TESTED_EXTRAS
        if not extra.startswith("test")
        for name in requirements(PROJECT["optional-dependencies"][extra])
    }
    assert {row[0] for row in rows} == set(DEPENDENCIES) | optional
    for library, _, newest in rows:
        below = bound(TESTED[library.split()[0]], "<")
        assert newest == (f"{below.major}.{below.minor - 1}" if below else "")


def test_modules_that_the_changelog_names_have_moved():
    page = (ROOT / "docs/changelog.md").read_text(encoding="utf-8")
    table = re.search(r"^\| before \| now \|\n\|[-| ]+\n((?:\|.*\n)+)", page, re.M)[1]
    cells = [line.split("|")[1:3] for line in table.splitlines()]
    before, now = (
        {name for cell in column for name in re.findall(r"`(fffcpu[\w.]+)`", cell)}
        for column in zip(*cells, strict=True)
    )
    assert [name for name in sorted(now) if importlib.util.find_spec(name) is None] == []
    assert [name for name in sorted(before - now) if importlib.util.find_spec(name)] == []
    assert len(before) > 15
