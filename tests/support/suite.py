"""The conformance suite as a kernel developer runs it: from a folder that holds a kernel alone."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import PACKAGE

__all__ = ["SUITE", "clean_environment", "run_pytest"]

SUITE = ("-p", "fffcpu.testing.plugin", "--pyargs", "fffcpu.testing")
"""Options of pytest that run the suite."""

LEFT_OUT = (
    *("PYTHONSAFEPATH", "PYTEST_ADDOPTS", "FFFCPU_BACKEND"),
    # What pytest prints depends on these: a build server gets whole messages, a terminal colours.
    *("CI", "BUILD_NUMBER", "PY_COLORS", "FORCE_COLOR", "NO_COLOR"),
)


def clean_environment(**variables):
    """Environment in which the package under test is found as if it were installed."""
    inherited = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    return {**inherited, "PYTHONPATH": str(PACKAGE.parent), **variables}


def run_pytest(folder, *options, **variables):
    """Run pytest in a folder; like its command, it leaves the folder out of the path of modules."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
