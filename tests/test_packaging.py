"""pyproject.toml, the constraints for the oldest versions and the workflows agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.support.paths import PACKAGE, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

OLDEST = ROOT / ".ci/oldest.txt"

TESTED_EXTRAS = (
    *("dask", "onnx", "parquet", "plot", "serve", "sklearn", "text", "torch"),
    *("testing", "test"),
)
"""Extras that are installed with the oldest versions: those of the tests, and what they use."""


def requirements(lines):
    """Requirements by name, but for extras of our own; those of two systems must be alike."""
    found = {}
    for requirement in map(Requirement, lines):
        if requirement.name != PROJECT["name"]:
            same = found.setdefault(requirement.name, requirement.specifier)
            assert same == requirement.specifier, requirement
    return found


def constraints(text):
    """Versions by name of a file of constraints."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return dict(line.split("==") for line in lines if line)


def bound(specifier, operator):
    """Versions that a specifier bounds by an operator; at most one is expected."""
    found = [Version(part.version) for part in specifier if part.operator == operator]
    assert len(found) < 2, specifier
    return found[0] if found else None


DEPENDENCIES = requirements(PROJECT["dependencies"])

CONSTRAINTS = constraints(OLDEST.read_text(encoding="utf-8"))

TESTED = DEPENDENCIES | requirements(
    line for extra in TESTED_EXTRAS for line in PROJECT["optional-dependencies"][extra]
)


def test_the_oldest_versions_are_the_lower_bounds():
    lowest = {name: bound(specifier, ">=") for name, specifier in TESTED.items()}
    assert None not in lowest.values()
    listed = {name: Version(version) for name, version in CONSTRAINTS.items()}
    assert lowest == {name: listed.get(name) for name in lowest}


def test_what_else_is_held_back_is_needed_by_those():
    # The last paragraph of the file, with the reasons.
    rest = set(CONSTRAINTS) - set(TESTED)
    text = OLDEST.read_text(encoding="utf-8").rpartition("\n\n")[2]
    assert rest == set(constraints(text))
    assert all("#" in line for line in text.splitlines())


def test_every_bound_of_a_library_is_the_same_in_each_extra():
    extras = PROJECT["optional-dependencies"]
    for name, lines in extras.items():
        for library, specifier in requirements(lines).items():
            assert specifier == TESTED.get(library, specifier), (name, library)


def test_numba_ends_with_the_newest_minor_version_that_was_tested():
    # fffcpu/kernels/_numba uses private parts of Numba, which may change in any minor version.
    specifier = DEPENDENCIES["numba"]
    newest = bound(specifier, "<")
    assert newest is not None
    assert newest.micro == 0
    installed = Version(importlib.metadata.version("numba"))
    assert specifier.contains(installed, prereleases=True)


def test_python_versions_are_a_run_that_starts_at_the_oldest():
    versions = [
        classifier.rpartition(" ")[2]
        for classifier in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", classifier)
    ]
    minors = [int(version.partition(".")[2]) for version in versions]
    assert minors == list(range(minors[0], minors[0] + len(minors)))
    assert PROJECT["requires-python"] == f">={versions[0]}"
    page = (ROOT / "docs/stable.md").read_text(encoding="utf-8")
    assert f"| Python | {', '.join(versions)} |" in page
    workflow = (ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8")
    tested = set(re.findall(r'python(?:-version)?: "(3\.\d+)"', workflow))
    assert set(versions) <= tested


def test_urls_lie_under_one_home():
    urls = PROJECT["urls"]
    assert set(urls) == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert all(url.startswith(urls["Homepage"]) for url in urls.values())
    for url in urls.values():
        path = url.partition("/main/")[2] or url.partition("/main")[2]
        assert not path or (ROOT / path).exists(), url


@pytest.mark.parametrize("path", [*sorted((ROOT / ".github").rglob("*.*"))], ids=lambda p: p.name)
def test_links_of_the_forms_lie_under_the_home_too_and_exist(path):
    text = path.read_text(encoding="utf-8")
    home = PROJECT["urls"]["Homepage"]
    for url in re.findall(r"https://github\.com/[^\s)\"]+", text):
        assert url.startswith(home), url
        place = re.search(r"/(?:blob|tree)/main/(.+)", url)
        assert place is None or (ROOT / place[1]).exists(), url


def test_licences_and_data_lie_in_the_package():
    for pattern in PROJECT["license-files"]:
        assert list(ROOT.glob(pattern)), pattern
    for name in ("py.typed", "data/digits.npz", "data/fastbert/model.safetensors"):
        assert (PACKAGE / name).is_file(), name
