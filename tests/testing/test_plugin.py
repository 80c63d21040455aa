"""The suite from outside: a folder with nothing but a kernel, and the command that docs print.

Python runs with ``-P``, as the command ``pytest`` does: the current folder is not on its path.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys

import pytest
from hypothesis import settings

from fffcpu import kernels
from fffcpu.errors import MissingExtraError
from fffcpu.testing.plugin import EXAMPLES, JIT
from tests.support.paths import PACKAGE
from tests.support.suite import SUITE, run_pytest

INSTALL = "install it with: pip install 'fffcpu[testing]'"

OTHERS = """
import functools

from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.backends.vectorized import (
    leaf_infer, leaf_route, path_backward, path_choices, path_forward, path_logits
)

@functools.wraps(vectorized.path_infer)
def path_infer(y, x, *arguments):
    vectorized.path_infer(y, x, *arguments)
"""

WRONG = {
    "one row in three": "    y[2::3] *= 1.001\n",
    "one row in three of a large batch": "    y[2 if len(y) > 100 else len(y) :: 3] *= 1.001\n",
    "warnings": "    x - x\n",
}
"""What a kernel may do besides, by the reason why it is refused."""

HALF = "from fffcpu.kernels.backends.vectorized import leaf_infer, leaf_route, path_infer\n"

ABSENT = "raise ModuleNotFoundError(\"No module named 'hypothesis'\", name='hypothesis')\n"


@pytest.mark.slow
@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_kernel_is_refused(mistake, tmp_path):
    (tmp_path / "my_kernels.py").write_text(OTHERS + WRONG[mistake])
    done = run_pytest(tmp_path, *SUITE, "--kernel", "my_kernels", "-x", "-q", "-k", "test_path")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "1 failed" in done.stdout


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "argument 'name' of a backend must be 'grouped', .*No module named 'my_kernels'"),
        (HALF, "that has path_logits, path_forward, path_choices, path_backward, got 'my_kernels'"),
        (HALF + "leaf_infer.no", r"AttributeError: .*\(.*my_kernels.py, line 2\)"),
        ("def (", r"SyntaxError: .*\(my_kernels.py, line 1\)"),
    ],
    ids=["no such module", "missing functions", "failing import", "syntax"],
)
def test_wrong_use_is_an_error_of_one_line(source, message, tmp_path):
    if source is not None:
        (tmp_path / "my_kernels.py").write_text(source)
    done = run_pytest(tmp_path, *SUITE, "--kernel", "my_kernels")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert re.match(f"ERROR: option --kernel: .*{message}", done.stderr)
    assert done.stderr.strip().count("\n") == 0


def test_without_hypothesis_the_error_names_the_extra(tmp_path):
    (tmp_path / "hypothesis.py").write_text(ABSENT)
    path = os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])
    done = run_pytest(tmp_path, *SUITE, "-p", "no:hypothesispytest", PYTHONPATH=path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip() == f"ERROR: module 'hypothesis' is not installed; {INSTALL}"


def test_without_pytest_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    monkeypatch.delitem(sys.modules, "fffcpu.testing.plugin")
    with pytest.raises(MissingExtraError, match=re.escape(f"'pytest' is not installed; {INSTALL}")):
        importlib.import_module("fffcpu.testing.plugin")


def test_without_a_kernel_the_suite_runs_on_every_backend_here(tmp_path):
    done = run_pytest(tmp_path, *SUITE, "--collect-only", "-q", "-k", "test_ties_go_left")
    assert done.returncode == 0, done.stdout + done.stderr
    assert tuple(re.findall(r"test_ties_go_left\[(\w+)\]", done.stdout)) == kernels.BACKENDS


def test_examples_are_as_many_as_documented(request):
    assert (60 if JIT else 10) == EXAMPLES
    assert settings.get_profile("fffcpu").max_examples == EXAMPLES
    if not request.config.getoption("--hypothesis-profile"):
        assert settings.default.max_examples == EXAMPLES


def test_the_oracle_imports_nothing_of_the_package():
    tree = ast.parse((PACKAGE / "testing" / "oracle.py").read_text(encoding="utf-8"))
    imports = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert "import numpy as np" in imports
    assert not [line for line in imports if "fffcpu" in line]
