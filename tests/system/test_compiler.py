"""Whether anything compiles: where Numba is installed and its JIT is on."""

from __future__ import annotations

import subprocess
import sys

import numba
import pytest

from fffcpu.kernels import jit
from fffcpu.system.compiler import compiles, has_numba


def test_numba_is_installed_here():
    assert has_numba()
    assert compiles() is jit.JIT


def test_without_numba_nothing_compiles(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not has_numba()
    assert not compiles()


@pytest.mark.parametrize("disabled", [False, True])
def test_without_the_jit_nothing_compiles(monkeypatch, disabled):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", disabled)
    assert has_numba()
    assert compiles() is not disabled


def test_to_look_for_numba_does_not_import_it():
    program = (
        "import sys; from fffcpu.system.compiler import has_numba; has_numba(); "
        "raise SystemExit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
