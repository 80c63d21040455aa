"""Whether Numba is installed."""

from __future__ import annotations

import subprocess
import sys

from fffcpu.system.compiler import has_numba


def test_numba_is_installed_here():
    assert has_numba()


def test_a_module_that_is_blocked_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not has_numba()


def test_to_look_for_numba_does_not_import_it():
    program = (
        "import sys; from fffcpu.system.compiler import has_numba; has_numba(); "
        "raise SystemExit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
