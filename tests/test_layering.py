"""The modules form layers: each imports only what stands before it, and nothing before its time.

The order is read off the import statements of every module, wherever they stand (in a function, or
for a type checker only): a cycle that is merely put off is a cycle.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ORDER = (
    "errors",
    "tree",
    "lowbit",
    "checks",
    "system",
    "config",
    "parameters",
    "columns",
    "data",
    "checkpoints",
    "text",
    "kernels",
    "layers",
    "models",
    "training",
    "inference",
    "pipelines",
    "recipes",
    "sklearn",
    "dask",
    "torch",
    "onnx",
    "diagnosis",
    "benchmarking",
    "plots",
    "testing",
    "serve",
    "cli",
)
"""Modules and packages of fffcpu: each may import those before it, and none after it."""

FORBIDDEN = {"training": {"layers", "models"}}
"""What the order would allow, but the design does not: optimizers see arrays, not layers."""

KERNEL_ORDER = (
    "weights",
    "crossover",
    "_numba.settings",
    "_numba.cache",
    "_numba.compiling",
    "_numba.address",
    "jit",
    "_numba.vector",
    "_numba.integers",
    "_numba.matrices",
    "simd",
    "sums",
    "elementwise",
    "descent",
    "blocks",
    "matrix_products",
    "integer_products",
    "backends.gradients",
    "backends.vectorized",
)
"""What the other modules of `fffcpu.kernels` stand on. `vectorized` is a backend as well, and the
one that others may take plain NumPy from."""

LAYER_BASE = "layer"
"""The module of `fffcpu.layers` that the other layers derive from."""

HEAVY = {"numba", "llvmlite", "scipy", "safetensors", "tqdm", "torch"}
"""Imported when first needed, never by `import fffcpu`."""


def package_root() -> Path:
    """Folder of the package under test, found without importing it."""
    spec = importlib.util.find_spec("fffcpu")
    assert spec is not None, "fffcpu is not installed"
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


ROOT = package_root()


def module_name(path: Path) -> str:
    """`kernels/jit.py` -> `fffcpu.kernels.jit`; `kernels/__init__.py` -> `fffcpu.kernels`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("fffcpu", *(part for part in parts if part != "__init__")))


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported_names(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Dotted names that the import statements of a module ask for.

    `from a import b` yields `a.b`, whether b is a module or a name in one.
    """
    package = module if is_package else module.rpartition(".")[0]
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                base = importlib.util.resolve_name("." * statement.level + base, package)
            yield from (f"{base}.{alias.name}" for alias in statement.names)


def imports_of(module: str) -> set[str]:
    """Modules of fffcpu that a module imports: the longest part of each name that is a module."""
    path = SOURCES[module]
    found = set()
    source = path.read_text(encoding="utf-8")
    for name in imported_names(source, module, is_package=path.name == "__init__.py"):
        if name.split(".")[0] != "fffcpu":
            continue
        while name not in SOURCES and "." in name:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {module}


def segment(module: str, index: int) -> str:
    """`segment("fffcpu.kernels.jit", 2)` is `jit`; an absent part is empty."""
    parts = module.split(".")
    return parts[index] if index < len(parts) else ""


def test_imports_are_read_in_every_form():
    source = (
        "import numpy as np, fffcpu.tree\n"
        "from fffcpu import errors\n"
        "from . import jit\n"
        "from ..config import Activation\n"
        "def late():\n"
        "    from fffcpu.kernels.simd import dot\n"
    )
    names = set(imported_names(source, "fffcpu.kernels.rowwise", is_package=False))
    assert names == {
        "numpy",
        "fffcpu.tree",
        "fffcpu.errors",
        "fffcpu.kernels.jit",
        "fffcpu.config.Activation",
        "fffcpu.kernels.simd.dot",
    }


def test_every_module_has_a_place():
    unplaced = {segment(module, 1) for module in SOURCES} - {"", "__main__"} - set(ORDER)
    assert not unplaced, f"give these a place in ORDER: {sorted(unplaced)}"


@pytest.mark.parametrize("module", [name for name in SOURCES if segment(name, 1) in ORDER])
def test_module_imports_only_what_stands_before_it(module):
    room = segment(module, 1)
    allowed = {room, *ORDER[: ORDER.index(room)]} - FORBIDDEN.get(room, set())
    # The package itself gathers the public names, so only what stands on all of them may import it.
    allowed |= {""} if room in ("dask", "onnx", "testing", "serve", "cli") else set()
    wrong = {name for name in imports_of(module) if segment(name, 1) not in allowed}
    assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", [name for name in SOURCES if segment(name, 1) == "kernels"])
def test_kernels_stand_on_each_other_in_order(module):
    own = module.removeprefix("fffcpu.kernels").removeprefix(".")
    if SOURCES[module].name == "__init__.py":
        return  # a package gathers its modules
    known = KERNEL_ORDER[: KERNEL_ORDER.index(own)] if own in KERNEL_ORDER else KERNEL_ORDER
    imports = {name for name in imports_of(module) if segment(name, 1) == "kernels"}
    siblings = {name.removeprefix("fffcpu.kernels").removeprefix(".") for name in imports}
    wrong = siblings - {own, *known}
    assert not wrong, f"{module} imports {sorted(wrong)} (an empty name is fffcpu.kernels itself)"


def test_the_fingerprint_of_the_cache_covers_all_that_kernels_are_made_of():
    from fffcpu.kernels._numba.cache import FOUNDATIONS, sources

    todo, found = [name for name in SOURCES if segment(name, 1) == "kernels"], set()
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += imports_of(module)
    rooms = {segment(name, 1) for name in found}
    assert rooms <= {name.removesuffix(".py") for name in FOUNDATIONS}
    hashed = set(sources())
    assert {SOURCES[name] for name in found} <= hashed
    assert SOURCES["fffcpu.cli"] not in hashed


def test_system_imports_nothing_by_itself():
    """BLAS must be configured before NumPy is loaded, which almost everything imports."""
    source = SOURCES["fffcpu.system"].read_text(encoding="utf-8")
    assert not list(imported_names(source, "fffcpu.system", is_package=True))


def test_base_layer_imports_no_other_layer():
    imports = imports_of(f"fffcpu.layers.{LAYER_BASE}")
    assert not {name for name in imports if segment(name, 1) == "layers"}


def run_python(program: str) -> str:
    """Output of a program that a fresh interpreter runs with the package under test."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    environment.pop("FFFCPU_BACKEND", None)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    program = "import sys, fffcpu.models; print(*{name.split('.')[0] for name in sys.modules})"
    assert not HEAVY & set(run_python(program).split())


def test_layers_run_without_numba():
    program = (
        "import sys\n"
        "sys.modules.update(numba=None, llvmlite=None)\n"
        "from fffcpu import FastFeedForward, LeafFeedForward\n"
        "rows = [[0.5, -1.0, 2.0]]\n"
        "print(FastFeedForward(3, 2, 2, rng=0)(rows).shape)\n"
        "print(LeafFeedForward(3, 2, 2, 4, rng=0)(rows).shape)\n"
        "from fffcpu.models import FastBertConfig, FastBertForMaskedLM\n"
        "config = FastBertConfig(9, 4, 1, 2, feedforward_size=1, depth=2, positions=8)\n"
        "print(FastBertForMaskedLM(config, rng=0)([[1, 2, 3]]).shape)\n"
    )
    assert run_python(program).split("\n")[:3] == ["(1, 2)", "(1, 2)", "(1, 3, 9)"]
