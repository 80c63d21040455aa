"""What NumPy's BLAS is told about its idle threads, and what other programs see of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fffcpu.system.blas import VARIABLE

SEEN = "import os; print(blas.APPLIED, os.environ.get(blas.VARIABLE))"


@pytest.mark.parametrize(
    ("imports", "value", "expected"),
    [
        ("from fffcpu.system import blas", None, "True None"),
        ("import numpy; from fffcpu.system import blas", None, "False None"),
        ("from fffcpu.system import blas", "20", "False 20"),
    ],
)
def test_only_where_nothing_is_set_or_loaded(imports, value, expected):
    environment = {name: own for name, own in os.environ.items() if name != VARIABLE}
    if value is not None:
        environment[VARIABLE] = value
    command = [sys.executable, "-c", f"{imports}; {SEEN}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected.split()


def test_the_variable_is_set_when_numpy_loads():
    program = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'numpy':\n"
        f"            print(os.environ.get('{VARIABLE}'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import fffcpu\n"
    )
    environment = {name: own for name, own in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["14"]
