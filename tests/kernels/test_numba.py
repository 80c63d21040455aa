"""A canary: the private parts of Numba that `fffcpu.kernels._numba` uses are as it takes them.

It fails first when a new version of Numba changes one of them. Then look at `_numba`, run the whole
suite, and add the version here and to the upper bound in pyproject.toml.
"""

from __future__ import annotations

import inspect

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba._dispatcher import compute_fingerprint
from numba.core import cgutils, config, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.registry import CPUDispatcher, cpu_target
from numba.extending import models, register_model
from numba.np.ufunc import parallel

from fffcpu.kernels import jit
from fffcpu.kernels._numba import address, cache, compiling, settings

TESTED = ("0.61", "0.62", "0.63", "0.64", "0.65", "0.66", "0.67", "0.68")
"""Minor versions on which the whole suite passed, or lies between two on which it did."""

compiled_only = pytest.mark.slow  # kernels are compiled


@jit.kernel
def add_up(out, x, start, stop):
    for k in range(start, stop):
        out[0] += x[k]


def test_this_version_was_tested():
    assert ".".join(numba.__version__.split(".")[:2]) in TESTED


def test_the_cache_has_the_hooks_that_ours_overrides():
    assert list(inspect.signature(FunctionCache.load_overload).parameters) == [
        "self",
        "sig",
        "target_context",
    ]
    assert list(inspect.signature(FunctionCache.save_overload).parameters) == [
        "self",
        "sig",
        "data",
    ]
    one = FunctionCache(test_this_version_was_tested)
    assert one._impl.locator.get_source_stamp()
    assert hasattr(one._cache_file, "_source_stamp")


def test_the_cache_has_kinds_of_folders_in_an_order():
    kinds = CompileResultCacheImpl._locator_classes
    names = [kind.__name__.strip("_") for kind in kinds[:3]]
    assert names == ["UserProvidedCacheLocator", "InTreeCacheLocator", "UserWideCacheLocator"]
    assert all(hasattr(kind, "ensure_cache_path") for kind in kinds)
    assert len(cache._kinds()) == 2 * len(kinds)


def test_the_environment_is_read_again_only_where_it_differs(monkeypatch):
    monkeypatch.setenv("NUMBA_DEBUG_CACHE", "1")
    with settings.held():
        config.reload_config()
        assert config.DEBUG_CACHE == 0
    config.reload_config()
    assert config.DEBUG_CACHE == 1
    monkeypatch.undo()
    config.reload_config()
    assert config.DEBUG_CACHE == 0


def test_the_pool_has_the_size_that_was_read_when_numba_was_imported():
    assert parallel.NUM_THREADS == numba.config.NUMBA_NUM_THREADS


@compiled_only
def test_a_dispatcher_has_what_is_read_from_it_and_set():
    assert isinstance(add_up, CPUDispatcher)
    assert isinstance(add_up._cache, cache.KernelCache)
    out, x = np.zeros(1), np.arange(4.0)
    add_up(out, x, 0, 4)
    assert out[0] == 6
    assert sum(compiling.loads(add_up)) == 1
    assert add_up.stats.cache_path == compiling.cache_folder(add_up)


@compiled_only
def test_a_kernel_has_an_address_and_types_have_fingerprints():
    arguments = (np.zeros(1), np.arange(4.0))
    assert address.address(add_up, arguments) == address.address(add_up, arguments) > 0
    fingerprints = {
        compute_fingerprint(array)
        for array in (
            np.zeros(1),
            np.zeros(1, np.float32),
            np.zeros((1, 1)),
            np.zeros(4)[::2],
            None,
        )
    }
    assert len(fingerprints) == 5
    (overload,) = (add_up.overloads[signature] for signature in list(add_up.overloads)[:1])
    assert overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name) > 0


def test_code_generation_has_what_vectors_are_made_of():
    name, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    assert all(isinstance(text, str) for text in (name, cpu, features))
    assert issubclass(models.PrimitiveModel, models.DataModel)
    assert callable(register_model)
    assert callable(cgutils.get_or_insert_function)
    assert ir.VectorType(ir.FloatType(), 16).count == 16
    assert types.float32.bitwidth == 32
