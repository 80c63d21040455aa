"""The page about PyTorch: its code runs as printed, and what it saves needs no PyTorch."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from tests.support.paths import PACKAGE, ROOT

CODE = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs/pytorch.md").read_text(encoding="utf-8"), re.M | re.S
)

WITHOUT = "import sys\nsys.modules['torch'] = None\n"


def run(code, folder):
    """What a program prints, in a fresh interpreter in which warnings of ours are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error:::fffcpu", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def accuracy(printed):
    (figure,) = re.findall(r"^accuracy (0\.\d+)$", printed, re.M)
    return float(figure)


@pytest.mark.slow
def test_a_network_trains_in_twenty_lines_and_runs_without_pytorch(tmp_path):
    train, serve = CODE[:2]
    lines = [line for line in train.splitlines() if line and "import" not in line]
    assert len(lines) <= 20
    assert "torch" not in serve
    assert accuracy(run(train, tmp_path)) > 0.93
    assert accuracy(run(WITHOUT + serve, tmp_path)) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("code", CODE[2:], ids=range(2, len(CODE)))
def test_the_other_code_of_the_page_runs(code, tmp_path):
    printed = run(code, tmp_path)
    if "accuracy" in code:
        assert accuracy(printed) > 0.85


def test_without_pytorch_the_error_names_the_extra(tmp_path):
    with pytest.raises(AssertionError, match=r"MissingExtraError: .*pip install 'fffcpu\[torch\]'"):
        run(WITHOUT + "import fffcpu.torch", tmp_path)
