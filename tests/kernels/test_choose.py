"""One backend module is chosen: by what is installed, or by FFFCPU_BACKEND."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fffcpu
from fffcpu import kernels
from fffcpu.errors import ArgumentError
from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.jit import JIT
from fffcpu.kernels.weights import PathWeights
from tests.support.processes import run

PACKAGE_PARENT = str(Path(fffcpu.__file__).parents[1])

OWN_BACKEND = """
from fffcpu.kernels.backends import vectorized
from fffcpu.kernels.backends.vectorized import *

calls = []

def path_infer(y, *arguments):
    calls.append(len(y))
    vectorized.path_infer(y, *arguments)
"""

WITHOUT_NUMBA = """
import sys

sys.modules["numba"] = sys.modules["llvmlite"] = None  # from now on they are not installed
"""

RUN_ALL = """
import numpy as np
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward, cmm

x = np.random.default_rng(0).standard_normal((9, 6))
for dtype in (np.float32, np.float64):
    fast = FastFeedForward(6, 5, 3, trees=2, dtype=dtype, rng=1)
    leaf = LeafFeedForward(6, 5, 3, 2, dtype=dtype, rng=1)
    dense = DenseFeedForward(6, 5, 3, dtype=dtype, rng=1)
    for layer in (fast, leaf, dense):
        y, cache = layer.forward(x)
        dx, grads = layer.backward(y, cache)
        assert layer(x).shape == y.shape == (9, 5)
        assert dx.shape == x.shape
        assert {name: grad.shape for name, grad in grads.items()} == layer.config.shapes()
    logits, nodes = cmm(x, fast.params["weights_in"], fast.params["bias_in"])
    assert (nodes == fast.route(x)).all()
    assert leaf.route(x).shape == (9,)
"""


def environment(*folders, **variables):
    """Environment in which the package under test is found, and nothing is forced but this."""
    variables = {name: str(value) for name, value in variables.items()}
    inherited = {name: value for name, value in os.environ.items() if name != "FFFCPU_BACKEND"}
    path = os.pathsep.join([PACKAGE_PARENT, *map(str, folders)])
    return {**inherited, "PYTHONPATH": path, **variables}


def output(program, *folders, **variables):
    """What a program prints that a fresh interpreter runs to its end."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(*folders, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def choose(monkeypatch):
    """`kernels.choose` as a process that calls it for the first time has it."""
    monkeypatch.delenv("FFFCPU_BACKEND", raising=False)
    kernels.selection.cache_clear()
    yield kernels.choose
    kernels.selection.cache_clear()


@pytest.fixture
def no_numba(monkeypatch):
    """Numba looks as if it were not installed."""
    monkeypatch.setitem(sys.modules, "numba", None)
    assert importlib.util.find_spec("numba") is None


# --- load_backend ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", kernels.BACKENDS)
def test_backends_here_go_by_their_short_or_dotted_name(name):
    module = kernels.load_backend(name)
    assert module.__name__ == f"fffcpu.kernels.backends.{name}"
    assert kernels.load_backend(module.__name__) is module


@pytest.mark.parametrize("name", kernels.BACKENDS)
def test_backends_here_export_all_functions(name):
    module = kernels.load_backend(name)
    assert set(kernels.FUNCTIONS) <= set(module.__all__)


def test_own_module_is_a_backend(tmp_path, monkeypatch):
    (tmp_path / "fffcpu_own").mkdir()
    (tmp_path / "fffcpu_own" / "kernel.py").write_text(OWN_BACKEND)
    monkeypatch.syspath_prepend(tmp_path)
    module = kernels.load_backend("fffcpu_own.kernel")
    assert module.path_backward is vectorized.path_backward
    assert module.path_infer is not vectorized.path_infer


@pytest.mark.parametrize("name", ["fffcpu_no_such", "numpy.no_such"])
def test_unknown_backend_is_an_error_that_lists_the_known(name):
    message = (
        "argument 'name' of a backend must be 'grouped', 'rowwise', 'vectorized', 'cuda' or the "
        "dotted name of a module, "
        f"got '{name}' .*No module named "
    )
    with pytest.raises(ArgumentError, match=message):
        kernels.load_backend(name)


def test_unknown_backend_in_the_current_folder_is_an_error_that_names_the_variable(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    (tmp_path / "fffcpu_here").mkdir()
    for file in ("__init__.py", "kernel.py"):
        (tmp_path / "fffcpu_here" / file).write_text(OWN_BACKEND)
    for name in ("fffcpu_here", "fffcpu_here.kernel"):
        with pytest.raises(ArgumentError, match=r"PYTHONPATH is '\.'\)"):
            kernels.load_backend(name)
    for name in ("fffcpu_elsewhere", "fffcpu_here.elsewhere"):
        with pytest.raises(ArgumentError, match=r"No module named 'fffcpu_\w+'\)"):
            kernels.load_backend(name)


@pytest.mark.parametrize("name", ["", ".rowwise", "..kernels", "kernels/rowwise", "a b"])
def test_name_that_is_no_dotted_name_is_an_error(name):
    with pytest.raises(
        ArgumentError, match=f"argument 'name' of a backend must be .*, got '{name}'"
    ):
        kernels.load_backend(name)


def test_module_that_lacks_functions_is_an_error_that_names_them(tmp_path, monkeypatch):
    source = (
        "from fffcpu.kernels.backends.vectorized import leaf_infer, path_logits, path_forward\n"
    )
    (tmp_path / "fffcpu_half.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    message = "that has path_infer, path_choices, path_backward, leaf_route, got 'fffcpu_half'"
    with pytest.raises(ArgumentError, match=message):
        kernels.load_backend("fffcpu_half")


def test_backend_that_needs_what_is_not_installed_says_so(tmp_path, monkeypatch):
    (tmp_path / "fffcpu_needy.py").write_text("import fffcpu_not_installed\n")
    monkeypatch.chdir(tmp_path)  # also where the module is in the current folder
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArgumentError, match=r"No module named 'fffcpu_not_installed'\)"):
        kernels.load_backend("fffcpu_needy")


def test_backend_with_an_error_of_its_own_shows_it(tmp_path, monkeypatch):
    (tmp_path / "fffcpu_wrong.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        kernels.load_backend("fffcpu_wrong")


# --- choose ---------------------------------------------------------------------------------------


def test_few_rows_take_the_row_kernels_and_many_the_grouped(choose, monkeypatch):
    monkeypatch.setattr(kernels, "get_num_threads", lambda: 2)
    weights_in = np.empty((8, 255, 384), np.float32)
    for rows, name in ((1, "rowwise"), (127, "rowwise"), (128, "grouped"), (10**6, "grouped")):
        assert choose(rows, weights_in).__name__ == f"fffcpu.kernels.backends.{name}"
        assert choose(rows).__name__ == "fffcpu.kernels.backends.rowwise"


def test_a_warm_up_takes_the_grouped_kernels_for_any_shape(choose):
    weights_in = np.empty((1, 4095, 8), np.float32)
    with kernels.backend_for_many():
        for shape in ({"weights_in": weights_in}, {"leaves": 10**6}):
            assert choose(1024, **shape).__name__ == "fffcpu.kernels.backends.grouped"
            assert choose(2, **shape).__name__ == "fffcpu.kernels.backends.rowwise"
    assert choose(1024, leaves=10**6).__name__ == "fffcpu.kernels.backends.rowwise"


@pytest.mark.parametrize(
    ("rows", "leaves", "name"),
    [(63, 1, "rowwise"), (64, 1, "grouped"), (255, 128, "rowwise"), (256, 128, "grouped")],
)
def test_rows_that_share_leaves_take_the_grouped_kernels(choose, rows, leaves, name):
    assert choose(rows, leaves=leaves).__name__ == f"fffcpu.kernels.backends.{name}"


def test_plain_numpy_is_the_default_without_numba(choose, no_numba):
    assert choose() is vectorized
    assert choose(10**6, leaves=1) is vectorized


@pytest.mark.parametrize("name", kernels.BACKENDS)
def test_variable_forces_a_backend(choose, monkeypatch, name):
    monkeypatch.setenv("FFFCPU_BACKEND", name)
    for rows in (1, 10**6):
        assert choose(rows, leaves=1).__name__ == f"fffcpu.kernels.backends.{name}"


def test_empty_variable_forces_nothing(choose, monkeypatch):
    monkeypatch.setenv("FFFCPU_BACKEND", "")
    assert choose().__name__ == "fffcpu.kernels.backends.rowwise"


def test_variable_that_names_nothing_is_an_error(choose, monkeypatch):
    monkeypatch.setenv("FFFCPU_BACKEND", "fffcpu_no_such")
    with pytest.raises(ArgumentError, match="got 'fffcpu_no_such'"):
        choose()


def test_choice_is_made_once(monkeypatch):
    first = kernels.choose()
    other = "vectorized" if first.__name__.endswith("rowwise") else "rowwise"
    monkeypatch.setenv("FFFCPU_BACKEND", other)
    assert kernels.choose() is first


# --- Rows of encoders -----------------------------------------------------------------------------


@pytest.mark.parametrize("forced", [None, "rowwise", "vectorized"])
def test_rows_are_compiled_unless_plain_numpy_is_forced(monkeypatch, forced):
    monkeypatch.delenv("FFFCPU_BACKEND", raising=False)
    if forced:
        monkeypatch.setenv("FFFCPU_BACKEND", forced)
    compiled = JIT and forced != "vectorized"
    name = "fused" if compiled else "vectorized"
    assert kernels.selection.__wrapped__().encoder.__name__ == f"fffcpu.kernels.encoder.{name}"


def test_rows_are_plain_without_numba(no_numba):
    assert kernels.selection.__wrapped__().encoder.__name__ == "fffcpu.kernels.encoder.vectorized"


# --- Whole processes ------------------------------------------------------------------------------


@pytest.mark.slow
def test_forced_plain_numpy_runs_without_ever_importing_numba():
    program = RUN_ALL + "import sys; print('numba' in sys.modules)"
    assert output(program, FFFCPU_BACKEND="vectorized") == ["False"]


@pytest.mark.slow
def test_layers_work_where_numba_is_not_installed():
    program = (
        WITHOUT_NUMBA
        + RUN_ALL
        + """
import fffcpu
from fffcpu import kernels

print(kernels.choose().__name__, fffcpu.get_num_threads())
fffcpu.set_num_threads(1)
try:
    fffcpu.set_num_threads(2)
except ValueError as error:
    print(error)
"""
    )
    name, threads, *message = output(program)
    assert (name, threads) == ("fffcpu.kernels.backends.vectorized", "1")
    assert " ".join(message) == "argument 'threads' must be an integer from 1 to 1, got 2"


@pytest.mark.slow
def test_row_kernels_cannot_be_forced_where_numba_is_not_installed():
    program = WITHOUT_NUMBA + (
        "from fffcpu import FastFeedForward\n"
        "try:\n"
        "    FastFeedForward(2, 2, 1)([[1, 2]])\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    assert "got 'rowwise' (import of numba halted" in " ".join(
        output(program, FFFCPU_BACKEND="rowwise")
    )


@pytest.mark.slow
def test_layers_run_on_the_module_that_the_variable_names(tmp_path):
    (tmp_path / "my_kernels").mkdir()
    (tmp_path / "my_kernels" / "fast.py").write_text(OWN_BACKEND)
    program = (
        "import numpy as np\n"
        "from fffcpu import FastFeedForward, kernels\n"
        "y = FastFeedForward(6, 5, 3, rng=1)(np.ones((4, 6)))\n"
        "print(kernels.choose().__name__, kernels.choose().calls[0], y.tobytes().hex())\n"
    )
    name, rows, bits = output(program, tmp_path, FFFCPU_BACKEND="my_kernels.fast")
    assert (name, rows) == ("my_kernels.fast", "4")
    layer = fffcpu.FastFeedForward(6, 5, 3, rng=1)
    expected = np.empty((4, 5), np.float32)
    x = np.ones((4, 6), np.float32)
    vectorized.path_infer(expected, x, *PathWeights.of(layer.params), 0)
    assert bits == expected.tobytes().hex()


@pytest.mark.slow
def test_first_call_of_a_layer_says_that_the_variable_names_nothing():
    program = (
        "from fffcpu import FastFeedForward\n"
        "layer = FastFeedForward(2, 2, 1)\n"
        "try:\n"
        "    layer([[1, 2]])\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    message = " ".join(output(program, FFFCPU_BACKEND="no.such.module"))
    assert message.startswith(
        "environment variable FFFCPU_BACKEND: argument 'name' of a backend must be 'grouped', "
    )
    assert "got 'no.such.module'" in message


LOGGED = """
import logging, sys
import numpy as np
import fffcpu

logger = logging.getLogger("fffcpu")
if len(sys.argv) > 1:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(sys.argv[1])
fffcpu.FastFeedForward(4, 4, 2, rng=0)(np.ones((3, 4)))
fffcpu.system.threads.get_thread_layer()
"""


@pytest.fixture
def logged(tmp_path):
    """Run a layer with the log of a level; return its lines."""
    program = tmp_path / "logged.py"
    program.write_text(LOGGED)

    def run_logged(*level, **variables):
        return run(program, *level, NUMBA_CACHE_DIR=str(tmp_path / "cache"), **variables)

    return run_logged


@pytest.mark.slow
def test_what_is_chosen_compiled_and_read_is_logged_once(logged):
    compiling = "fffcpu.kernels._numba.cache"
    kernel = "fffcpu.kernels.backends.rowwise._path_infer"
    lines = logged("INFO")
    (compiled,) = (line for line in lines if line.startswith(f"INFO {compiling}: "))
    pattern = rf"INFO {compiling}: compiled {kernel} in \d+\.\d\d s"
    assert re.fullmatch(pattern, compiled)
    lines = logged("DEBUG", NUMBA_NUM_THREADS="1")
    (choice,) = (line for line in lines if line.startswith("INFO fffcpu.kernels: "))
    assert "backends.rowwise for few rows" in choice
    assert choice.endswith("(Numba), compiled, 1 threads")
    assert any(line.startswith(f"DEBUG {compiling}: read {kernel} from") for line in lines)
    assert not any("compiled fffcpu" in line for line in lines)
    (layer,) = (line for line in lines if line.startswith("INFO fffcpu.system.pool: "))
    assert layer.endswith("1 threads (NUMBA_NUM_THREADS=1)")
    assert logged() == []  # silent unless somebody listens


def test_a_backend_that_is_forced_is_logged_with_the_reason(logged):
    (line,) = (line for line in logged("INFO", FFFCPU_BACKEND="vectorized") if "backends" in line)
    assert line.endswith("(FFFCPU_BACKEND=vectorized), not compiled")


def test_the_log_imports_no_numba_for_plain_numpy(tmp_path):
    program = tmp_path / "imports.py"
    program.write_text(
        "import sys, fffcpu\nfffcpu.FastFeedForward(4, 4, 2, rng=0)([[1.0] * 4])\n"
        "print('numba' in sys.modules)"
    )
    assert run(program, FFFCPU_BACKEND="vectorized") == ["False"]
