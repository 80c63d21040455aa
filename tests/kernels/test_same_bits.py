"""Compiled for a narrower CPU, kernels give the bits that they give on this one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite.binding import get_host_cpu_features

import fffcpu
from tests.support import digests

DTYPES = ("float32", "float64")

if platform.machine() in ("AMD64", "x86_64"):
    # The first has AVX2 and fused multiply-adds. The last has neither, and calls a function for
    # each multiply-add; one dtype will do to show that this works, since it all compiles anew.
    # Products of int8 have instructions of their own; the features, by which they are chosen, are
    # those of Numba, which does not know what a CPU's name stands for.
    NARROWER = [
        ("haswell", "+avx2", DTYPES),
        ("alderlake", "+avx2,+avxvnni", ()),
        ("nehalem", "", DTYPES[:1]),
    ]
else:
    NARROWER = [("generic", "", DTYPES)]


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize(("cpu", "features", "dtypes"), NARROWER, ids=[cpu for cpu, *_ in NARROWER])
def test_bits_are_those_of_a_narrower_cpu(cpu, features, dtypes, tmp_path):
    if "avxvnni" in features and not get_host_cpu_features().get("avxvnni"):
        pytest.skip("this CPU has no AVX-VNNI")
    # Without NUMBA_CPU_FEATURES, Numba would add this machine's features to that CPU's.
    variables = {
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    found = digests_of_a_process(variables, [digests.__file__, *dtypes])
    used = found.pop("registers").split()
    assert "zmm" not in used
    assert ("ymm" in used) == ("+avx2" in features)
    assert found == digests.digests(*dtypes)


WIDER = """
import runpy, sys
from numba.core.registry import cpu_target
kind = type(cpu_target.target_context.codegen())
magic = kind.magic_tuple
kind.magic_tuple = lambda self: (*magic(self)[:2], magic(self)[2] + ",+avx512f")
import fffcpu.kernels._numba.vector
assert fffcpu.kernels._numba.vector.REGISTER_BYTES == 64
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.thorough
def test_bits_are_those_of_registers_of_64_bytes(tmp_path):
    from fffcpu.kernels._numba.vector import REGISTER_BYTES

    if REGISTER_BYTES == 64:
        pytest.skip("this CPU has such registers: all other tests use them")
    # Kernels are written for the widest registers; LLVM splits what this machine does not have.
    variables = {"NUMBA_CACHE_DIR": str(tmp_path)}
    program = ["-c", WIDER, digests.__file__, "float32"]
    found = digests_of_a_process(variables, program)
    del found["registers"]
    assert found == digests.digests("float32")


def digests_of_a_process(variables, arguments):
    path = str(Path(fffcpu.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ") for line in done.stdout.splitlines())
