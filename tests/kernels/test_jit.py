"""Compiled kernels: launching, recording, equal types, and the cache on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from numba.core.caching import FunctionCache

from fffcpu.kernels import jit
from fffcpu.system.pool import POOL
from tests.support.processes import PACKAGE, run

# --- Launching ------------------------------------------------------------------------------------


@jit.kernel
def note_ranges(ends, ranges, value, start, stop):
    """Write where each range ends to the place where it starts."""
    if value < 0:
        raise ValueError("negative")
    ends[start] = stop
    ranges[start] += value


@pytest.fixture
def threads(monkeypatch):
    number = 1 if numba.config.NUMBA_NUM_THREADS == 1 else 2
    monkeypatch.setattr(POOL, "threads", number)
    POOL.layer()  # which says what waking takes
    monkeypatch.setattr(POOL, "waking", 1)
    return number


ENOUGH = jit.MIN_PARALLEL_WORK
WHOLE = {0: 4}


def launch(work, items=4, value=1.5):
    """The ranges a kernel is run on: start and stop of each."""
    ends, ranges = np.zeros(items, np.int64), np.zeros(items)
    jit.launch(note_ranges, items, work, ends, ranges, value)
    np.testing.assert_array_equal(ranges, 1.5 * (ends > 0))
    return {start: int(ends[start]) for start in np.flatnonzero(ends).tolist()}


def test_small_work_stays_on_the_thread_of_the_caller(threads):
    assert launch(ENOUGH // 4 - 1) == WHOLE


def test_large_work_goes_to_the_pool(threads):
    assert launch(ENOUGH // 4) == ({0: 2, 2: 4} if threads > 1 else WHOLE)


def test_threads_that_are_slow_to_wake_are_woken_later(threads, monkeypatch):
    monkeypatch.setattr(POOL, "waking", 4)
    assert launch(ENOUGH) == ({0: 2, 2: 4} if threads > 1 else WHOLE)
    assert launch(ENOUGH - 1) == WHOLE


def test_serial_context(threads):
    assert jit.takes_pool()
    with jit.serial():
        assert launch(ENOUGH) == WHOLE
        assert not jit.takes_pool()
    assert jit.takes_pool()


def test_kernels_are_chosen_for_the_threads_of_a_context(threads, monkeypatch):
    monkeypatch.setattr(POOL, "threads", 5)
    assert jit.launch_threads() == 5
    with jit.serial():
        assert jit.launch_threads() == 1
    with jit.recording(parallel=False):
        assert jit.launch_threads() == 2


def test_one_thread_needs_no_pool(threads, monkeypatch):
    monkeypatch.setattr(POOL, "threads", 1)
    assert launch(ENOUGH) == WHOLE


def test_busy_pool_is_not_waited_for(threads):
    with POOL.lock:
        assert launch(ENOUGH) == WHOLE


def test_lost_pool_is_not_used(threads, monkeypatch):
    monkeypatch.setattr(POOL, "usable", False)
    assert launch(ENOUGH) == WHOLE


@pytest.mark.parametrize("work", [1, ENOUGH])
def test_an_error_in_a_kernel_is_raised_and_the_pool_is_free_again(threads, work):
    for _ in range(2):
        with pytest.raises(ValueError, match="negative"):
            launch(work, value=-1.0)
    assert POOL.lock.acquire(blocking=False)
    POOL.lock.release()


def test_arguments_of_other_types_call_another_version(threads):
    for dtype in (np.float64, np.float32, np.float64):
        ends, ranges = np.zeros(4, np.int64), np.zeros(4, dtype)
        jit.launch(note_ranges, 4, ENOUGH, ends, ranges, 0.75)
        assert ranges.sum() == 0.75 * threads


def test_inner_functions_can_be_called_from_python():
    double = jit.inner(lambda a, at: 2 * a[at])
    assert double(np.array([3.0, 4.0]), 1) == 8.0
    assert double(np.array([3, 4]), 0) == 6


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [False, True])
def test_recording_launches_all_on_the_pool_or_none_however_small(parallel):
    from fffcpu.kernels.backends import rowwise

    leaves = np.full(3, -1, np.int32)
    arguments = np.zeros((3, 2)), np.zeros((1, 2)), np.array([1.0])
    with jit.recording(parallel=parallel) as times:
        rowwise.leaf_route(leaves, *arguments)
        np.testing.assert_array_equal(leaves, 1)
        rowwise.leaf_route(leaves, *arguments)
    assert [time[:2] for time in times] == [("_leaf_route", parallel)] * 2
    assert times[1].source == "memory"
    rowwise.leaf_route(leaves, *arguments)
    assert len(times) == 2


@pytest.mark.slow
def test_recording_without_a_pool_computes_all_the_same(monkeypatch):
    from fffcpu.kernels.backends import rowwise

    monkeypatch.setattr(POOL, "usable", False)
    leaves = np.full(3, -1, np.int32)
    with jit.recording(parallel=True) as times:
        rowwise.leaf_route(leaves, np.zeros((3, 2)), np.zeros((1, 2)), np.array([1.0]))
    np.testing.assert_array_equal(leaves, 1)
    assert [time[:2] for time in times] == [("_leaf_route", False)]


# --- Read-only arrays -----------------------------------------------------------------------------


def test_writable_array_is_passed_on():
    array = np.zeros(3)
    assert jit.writable(array) is array


@pytest.mark.parametrize("shape", [(5,), (0, 3), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_alias_of_a_read_only_array_is_the_same_memory(shape, dtype):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    array.flags.writeable = False
    alias = jit.writable(array)
    assert alias.flags.writeable
    assert alias.flags.c_contiguous
    assert alias.dtype == dtype
    assert alias.ctypes.data == array.ctypes.data
    np.testing.assert_array_equal(alias, array)
    assert not array.flags.writeable


def test_alias_keeps_the_memory_alive():
    array = np.full(1000, 7.0)
    array.flags.writeable = False
    alias = jit.writable(array)
    owner = alias
    while getattr(owner, "base", None) is not None:
        owner = owner.base
    assert owner.array is array


ONE_VERSION = """
import sys
import tempfile
from pathlib import Path
import numpy as np
import fffcpu

layer = fffcpu.FastFeedForward(20, 12, 3, rng=0)
assert "numba" not in sys.modules, "import fffcpu, or a layer, imports Numba"

from fffcpu.kernels import simd, sums
from fffcpu.kernels.backends import gradients, grouped, rowwise

dispatchers = {
    name: value
    for module in (gradients, grouped, rowwise, simd, sums)
    for name, value in vars(module).items()
    if hasattr(value, "signatures")
}
assert {"_path_infer", "dot", "weighted_sum"} <= set(dispatchers)
assert not any(kernel.signatures for kernel in dispatchers.values()), "importing compiles"

x = np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32)
y = layer(x)
read_only = x.copy()
read_only.flags.writeable = False
with tempfile.TemporaryDirectory() as folder:
    np.save(Path(folder) / "x.npy", x)
    mapped = np.load(Path(folder) / "x.npy", mmap_mode="r")
    for guise in (read_only, mapped, x.tolist(), np.asfortranarray(x), x.astype(">f4"), x[None]):
        assert layer(guise).tobytes() == y.tobytes()
    mapped._mmap.close()
out = np.empty((4, 24), np.float32)[:, ::2]
layer(read_only, out=out)
assert np.array_equal(out, y)
misaligned = np.frombuffer(b"-" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
assert layer(misaligned).tobytes() == y.tobytes()
assert layer.route(read_only).tobytes() == layer.route(x).tobytes()
_, cache = layer.forward(read_only)
layer.backward(y, cache)
y.flags.writeable = False
layer.backward(y, cache)
for name in ("_path_infer", "_path_logits", "_path_forward", "_path_deltas"):
    assert len(dispatchers[name].signatures) == 1, dispatchers[name].signatures
print("done")
"""


@pytest.mark.slow
def test_importing_compiles_nothing_and_no_guise_of_an_input_compiles_a_second_version(program):
    assert run(program(ONE_VERSION)) == ["done"]


# --- The cache on disk ----------------------------------------------------------------------------

FIRST_CALL = """
import warnings
import numpy as np
from fffcpu import FastFeedForward
from fffcpu.config import Activation


def first_call():
    # Right bits, judged by plain NumPy, and the warnings that came with them.
    layer = FastFeedForward(20, 12, 3, rng=0)
    x = np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = layer(x)
        assert np.array_equal(layer(x[::-1]), y[::-1])
        layer.route(x[:1])  # another kernel, which must not warn again
    from fffcpu.kernels.backends import vectorized
    from fffcpu.kernels.weights import PathWeights

    expected = np.empty_like(y)
    vectorized.path_infer(expected, x, *PathWeights.of(layer.params), int(Activation.GELU))
    np.testing.assert_allclose(y, expected, atol=1e-6)
    return [f"{w.category.__name__}: {w.message}" for w in caught]


def stats():
    from fffcpu.kernels.backends import rowwise

    found = rowwise._path_infer.stats
    return sum(found.cache_hits.values()), sum(found.cache_misses.values())


"""

REPORT = """
for warning in first_call():
    print(warning)
print(*stats())
"""

WARNING = "RuntimeWarning: compiled kernels cannot be kept on disk"


@pytest.mark.slow
def test_where_no_folder_is_writable_the_first_call_works_with_one_warning(
    program, installed, tmp_path
):
    nowhere = """
import tempfile


def refuse(*arguments, **keywords):
    raise OSError("read-only file system")


tempfile.TemporaryFile = refuse  # with which Numba tries out a folder
"""
    (tmp_path / "file").touch()
    no_home = str(tmp_path / "file" / "home")  # which cannot be made either
    path = program(nowhere, FIRST_CALL, REPORT)
    variables = {"NUMBA_CACHE_DIR": "", "HOME": no_home}
    warning, stats = run(path, package=installed.package, **variables)
    assert warning.startswith(WARNING)
    assert "NUMBA_CACHE_DIR is not set" in warning
    assert stats == "0 1"


@pytest.mark.slow
def test_where_kernels_cannot_be_saved_the_first_call_works_with_one_warning(program, tmp_path):
    full = """
from numba.core.caching import IndexDataCacheFile


def refuse(*arguments):
    raise OSError(28, "No space left on device")


IndexDataCacheFile._save_data = refuse
"""
    path = program(full, FIRST_CALL, REPORT)
    warning, stats = run(path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert warning.startswith(WARNING)
    assert "No space left on device" in warning
    assert stats == "0 1"


class Installed:
    """A copy of the package of its own, and a cache folder that its first call has filled."""

    def __init__(self, folder):
        self.package = folder / "site" / "fffcpu"
        self.cache = folder / "cache"
        self.program = folder / "program.py"
        self.program.write_text(FIRST_CALL + REPORT, encoding="utf-8")
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        self.filling = self.call(self.cache)

    def call(self, cache):
        return run(self.program, package=self.package, NUMBA_CACHE_DIR=str(cache))

    def call_as_another_user(self, **variables):
        """Run the program as a user who can write nothing here, and has no home folder."""
        path = os.pathsep.join((str(self.package.parent), os.environ["PATH"]))
        done = subprocess.run(
            [*OTHER_USER, sys.executable, str(self.program)],
            env={"PATH": path, "PYTHONPATH": str(self.package.parent), **variables},
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    def copy_cache(self, folder):
        return shutil.copytree(self.cache, folder / "cache")


OTHER_USER = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    # To read this Python, wherever it is installed; not to write.
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)


def another_user_runs_python():
    with contextlib.suppress(OSError):
        command = [*OTHER_USER, sys.executable, "-c", "import numba"]
        return subprocess.run(command, cwd="/", check=False, capture_output=True).returncode == 0
    return False


@pytest.fixture(scope="module")
def installed():
    with tempfile.TemporaryDirectory(prefix="installed-") as folder:
        Path(folder).chmod(0o755)  # other than the folders of pytest, which are its user's
        yield Installed(Path(folder))


@pytest.fixture
def other_user(installed):
    """The installed copy, if another user can run it."""
    if not another_user_runs_python():
        pytest.skip("this process may not become another user who can run this Python")
    return installed


@pytest.mark.slow
def test_second_process_compiles_nothing(installed):
    assert installed.filling == ["0 1"]
    assert list(installed.cache.rglob("*.nbi"))
    assert list(installed.cache.rglob("*.nbc"))
    assert installed.call(installed.cache) == ["1 0"]


@pytest.mark.slow
def test_cache_goes_to_the_folder_that_numba_is_told(installed):
    # And so not beside the sources.
    assert not list(installed.package.rglob("*.nb?"))


@pytest.mark.slow
@pytest.mark.parametrize("suffixes", [(".nbc",), (".nbi",), (".nbi", ".nbc")], ids=" and ".join)
def test_damaged_cache_is_mended(installed, tmp_path, suffixes):
    cache = installed.copy_cache(tmp_path)
    for path in cache.rglob("*"):
        if path.suffix in suffixes:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
    assert installed.call(cache) == ["0 1"]
    assert installed.call(cache) == ["1 0"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kernels/simd.py", "config/layers.py"])
def test_a_change_in_what_kernels_are_made_of_compiles_them_anew(installed, tmp_path, name):
    cache = installed.copy_cache(tmp_path)
    source = installed.package / name
    before = source.read_bytes()
    try:
        source.write_bytes(before + b"# A comment, in another file than the kernel's.\n")
        assert installed.call(cache) == ["0 1"]
        assert installed.call(cache) == ["1 0"]
    finally:
        source.write_bytes(before)


@pytest.mark.slow
def test_sources_that_were_touched_compile_nothing(installed):
    sources = [installed.program, *installed.package.rglob("*.py")]
    for path in sources:
        os.utime(path, (1, 1))
    assert installed.call(installed.cache) == ["1 0"]


@pytest.mark.slow
def test_a_warm_cache_is_used_by_a_user_who_cannot_write_it(other_user):
    assert other_user.call_as_another_user(NUMBA_CACHE_DIR=str(other_user.cache)) == ["1 0"]


@pytest.mark.slow
def test_a_warm_cache_beside_the_sources_is_used_by_another_user(other_user, tmp_path):
    folders = other_user.package.rglob("__pycache__")
    beside = {folder: set(folder.iterdir()) for folder in folders}
    variables = {"NUMBA_CACHE_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"}
    assert run(other_user.program, package=other_user.package, **variables) == ["0 1"]
    try:
        assert other_user.call_as_another_user() == ["1 0"]
        with tempfile.TemporaryDirectory() as home:  # to which new kernels would go
            Path(home).chmod(0o777)
            assert other_user.call_as_another_user(HOME=home) == ["1 0"]
    finally:
        for path in other_user.package.rglob("__pycache__/*.nb?"):
            if path not in beside.get(path.parent, ()):
                path.unlink()


@pytest.mark.slow
def test_a_warning_says_whether_a_folder_is_named_or_cannot_be_written(other_user, tmp_path):
    cold = other_user.cache.with_name("cold")
    cold.mkdir(exist_ok=True)
    warning, stats = other_user.call_as_another_user(NUMBA_CACHE_DIR=str(cold))
    assert warning.startswith(WARNING)
    assert f"NUMBA_CACHE_DIR is set to '{cold}', which this user cannot write" in warning
    assert "fffcpu warmup" in warning
    assert stats == "0 1"
    warning, stats = other_user.call_as_another_user()
    assert "NUMBA_CACHE_DIR is not set" in warning
    assert stats == "0 1"
    assert not Path("/~").exists()


@pytest.mark.slow
def test_a_change_elsewhere_compiles_nothing(installed):
    source = installed.package / "cli" / "info.py"
    before = source.read_bytes()
    try:
        source.write_bytes(before + b"# A comment, which no kernel is made of.\n")
        assert installed.call(installed.cache) == ["1 0"]
    finally:
        source.write_bytes(before)


@pytest.mark.slow
def test_code_of_another_signature_is_not_taken_from_the_cache(monkeypatch):
    from fffcpu.kernels.backends import rowwise

    found = SimpleNamespace(signature=SimpleNamespace(args=("float64",)))
    monkeypatch.setattr(FunctionCache, "load_overload", lambda *_: found)
    cache = rowwise._path_logits._cache.folders[-1]
    assert cache.load_overload(("float64",), None) is found
    assert cache.load_overload(("float32",), None) is None


@pytest.mark.slow
def test_a_kernel_without_a_file_works_with_a_warning_that_says_so():
    names = {"jit": jit}
    exec("@jit.kernel\ndef typed(out, start, stop):\n    out[start] = 1", names)
    out = np.zeros(2)
    with pytest.warns(RuntimeWarning, match="kernel 'typed' is not defined in a file"):
        names["typed"](out, 0, 2)
    assert out.tolist() == [1, 0]
