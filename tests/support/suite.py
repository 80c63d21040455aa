"""The conformance suite as a kernel developer runs it: from a folder that holds a kernel alone."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import PACKAGE

__all__ = ["SUITE", "run_pytest"]

SUITE = ("-p", "fffcpu.testing.plugin", "--pyargs", "fffcpu.testing")
"""Options of pytest that run the suite."""


def run_pytest(folder, *options, **variables):
    """Run pytest in a folder, with the package under test as if it were installed.

    As the command ``pytest`` does, it leaves the folder out of the path of modules.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONSAFEPATH", "PYTEST_ADDOPTS", "FFFCPU_BACKEND")
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *options],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(PACKAGE.parent), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
