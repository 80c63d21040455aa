"""What a type checker sees of the package: tests/typing holds programs with what it must infer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import typing

import pytest

import fffcpu
from fffcpu.layers import LAYERS, AnyLayer
from tests.support.paths import PACKAGE, ROOT


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_type_checker_sees_the_public_types(tmp_path):
    options = ["--strict", f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(ROOT / "tests" / "typing")],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_layer_from_a_file_has_one_of_the_types_that_files_hold():
    assert typing.get_type_hints(fffcpu.load)["return"] == AnyLayer
    assert set(typing.get_args(AnyLayer)) == set(LAYERS.values())
