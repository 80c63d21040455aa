"""Compiled kernels in whole processes: threads, forks, equal bits, and the cache on disk."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from numba.core.caching import FunctionCache

import fffcpu
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.kernels import jit

PACKAGE = Path(fffcpu.__file__).parent

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def available_layers():
    """Names of the threading layers that this Numba can load."""
    modules = {"workqueue": "workqueue", "omp": "omppool", "tbb": "tbbpool"}
    for name, module in modules.items():
        try:
            importlib.import_module(f"numba.np.ufunc.{module}")
        except ImportError:
            continue
        yield name


LAYERS = pytest.mark.parametrize("threading_layer", list(available_layers()))


def run(program, package=PACKAGE, **variables):
    """Run a program in a fresh interpreter; return the lines it prints, or fail with its stderr.

    Programs are files, so that processes they spawn can import them. Nothing of Numba's settings
    is inherited but a cache folder.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NUMBA_", "FFFCPU_", "OMP_", "KMP_")) or name == "NUMBA_CACHE_DIR"
    }
    environment = {**inherited, "PYTHONPATH": str(package.parent), **variables}
    done = subprocess.run(
        [sys.executable, str(program)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


@pytest.fixture
def program(tmp_path):
    """Write a program to a file."""

    def write(*parts):
        path = tmp_path / "program.py"
        path.write_text("\n".join(parts), encoding="utf-8")
        return path

    return write


# --- Threads of the caller ------------------------------------------------------------------------

SAME_LAYER = """
import numpy as np
from fffcpu import FastFeedForward
from fffcpu.kernels import jit

jit.MIN_PARALLEL_WORK = 1 << 18  # the largest batch goes to the pool, the others do not

layer = FastFeedForward(64, 64, 5, rng=0)
rng = np.random.default_rng(1)
batches = [rng.standard_normal((rows, 64)).astype(np.float32) for rows in (1, 7, 600)]


def right_answers():
    return [b"".join(layer(row[np.newaxis]).tobytes() for row in batch) for batch in batches]
"""

SIXTEEN_THREADS = """
import threading
import numba
from fffcpu.kernels import jit

THREADS, CALLS = 16, 1000
barrier = threading.Barrier(THREADS)
seen = [set() for _ in batches]
done = []
pooled = []
run = jit._pool.run


def counted_run(*arguments):
    answer = run(*arguments)
    pooled.append(answer)
    return answer


jit._pool.run = counted_run


def call(first):
    barrier.wait()  # so that the very first calls, which load the kernels, come all at once
    for k in range(first, first + CALLS):
        which = k % len(batches)
        seen[which].add(layer(batches[which]).tobytes())
    done.append(first)


threads = [threading.Thread(target=call, args=(first,)) for first in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

assert sorted(done) == list(range(THREADS)), "a thread ended early"
assert seen == [{answer} for answer in right_answers()], "a wrong answer"
assert True in pooled, "the pool never ran"
assert False in pooled, "no call ever found the pool busy"
print(numba.threading_layer())
"""


@pytest.mark.slow
@LAYERS
def test_sixteen_threads_may_call_one_layer_at_once(program, threading_layer):
    lines = run(
        program(SAME_LAYER, SIXTEEN_THREADS),
        NUMBA_THREADING_LAYER=threading_layer,
        NUMBA_NUM_THREADS="4",
    )
    assert lines == [threading_layer]


# --- Forks ----------------------------------------------------------------------------------------

FORKED = """
import multiprocessing
import os
import sys
import threading
import numba
import fffcpu
from fffcpu.kernels import jit


def check(expected):
    return [layer(batch).tobytes() for batch in batches] == expected


def fork_and_check(expected):
    child = os.fork()
    if not child:
        sys.exit(0 if check(expected) else 3)  # by way of all that an ending interpreter does
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    expected = right_answers()
    assert fork_and_check(expected) == 0, "before the pool was started"
    assert check(expected)
    print(numba.threading_layer())
    assert fork_and_check(expected) == 0, "after the pool was started"
    assert check(expected)

    # A grandchild, and a child forked while another thread is inside a kernel.
    child = os.fork()
    if not child:
        sys.exit(fork_and_check(expected) or not check(expected))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "a grandchild"
    with jit._pool.lock:
        child = os.fork()
        if not child:
            sys.exit(not jit._pool.lock.acquire(blocking=False))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the lock of another process"
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            layer(batches[-1])

    thread = threading.Thread(target=keep_busy)
    thread.start()
    codes = {fork_and_check(expected) for _ in range(4)}
    stop.set()
    thread.join()
    assert codes == {0}, f"while the pool was busy: {codes}"

    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(check, [expected] * 4) == [True] * 4, method
            pool.close()
            pool.join()
    assert check(expected)


if __name__ == "__main__":
    main()
    print("done")
"""


@pytest.mark.slow
@FORKS
@LAYERS
def test_children_of_a_fork_compute_and_end_as_usual(program, threading_layer):
    lines = run(
        program(SAME_LAYER, FORKED),
        NUMBA_THREADING_LAYER=threading_layer,
        NUMBA_NUM_THREADS="2",
    )
    assert lines[0] == threading_layer
    assert lines[-1] == "done"


# --- Numbers of threads ---------------------------------------------------------------------------

HASHES = """
import hashlib
import numba
import numpy as np
import fffcpu
from fffcpu import FastFeedForward, LeafFeedForward, cmm
from fffcpu.kernels import jit


jit.MIN_PARALLEL_WORK = 1 << 18  # each kernel, both steps of the backward included, is above


def bits():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 150)).astype(np.float32)
    dy = rng.standard_normal((1000, 140)).astype(np.float32)
    fast = FastFeedForward(150, 140, 5, trees=3, rng=1)
    leaf = LeafFeedForward(150, 140, 5, 8, rng=2)
    y, cache = fast.forward(x)
    dx, grads = fast.backward(dy, cache)
    logits, nodes = cmm(x, fast.params["weights_in"], fast.params["bias_in"])
    arrays = {
        "inference": fast(x),
        "forward": y,
        "route": fast.route(x),
        "logits": logits,
        "nodes": nodes,
        "dx": dx,
        **grads,
        "leaf inference": leaf(x),
        "leaf route": leaf.route(x),
    }
    return {name: hashlib.sha256(array).hexdigest() for name, array in arrays.items()}


calls = []
launch_parallel = jit._pool.run


def counted(parallel, arguments):
    calls.append(parallel.__name__)
    return launch_parallel(parallel, arguments)


jit._pool.run = counted
most = fffcpu.get_num_threads()
assert most == numba.config.NUMBA_NUM_THREADS
numba.set_num_threads(1)  # the caller's own choice, for the caller's own kernels
with_all = bits()
for threads in range(1, most):
    fffcpu.set_num_threads(threads)
    assert fffcpu.get_num_threads() == threads
    assert bits() == with_all, threads
print(*(f"{name} {value}" for name, value in with_all.items()), sep="\\n")
assert numba.get_num_threads() == 1
print(*sorted(set(calls)))
"""

PARALLEL_KERNELS = (
    "_leaf_infer_parallel",
    "_leaf_route_parallel",
    "_path_deltas_parallel",
    "_path_forward_parallel",
    "_path_gradients_parallel",
    "_path_infer_parallel",
    "_path_logits_parallel",
)


@pytest.mark.slow
def test_bits_do_not_depend_on_the_number_of_threads(program):
    path = program(HASHES)
    layers = list(available_layers())
    *alone, kernels_alone = run(path, NUMBA_NUM_THREADS="1")
    assert kernels_alone == ""  # none of them parallel
    for threads, layer in (("2", layers[0]), ("4", layers[-1])):
        *lines, kernels = run(path, NUMBA_NUM_THREADS=threads, NUMBA_THREADING_LAYER=layer)
        assert lines == alone
        assert kernels.split() == list(PARALLEL_KERNELS)


@pytest.fixture
def restored_threads():
    """Number of threads, set back after the test."""
    before = fffcpu.get_num_threads()
    yield before
    fffcpu.set_num_threads(before)


def test_number_of_threads_can_be_set_and_asked(restored_threads):
    assert 1 <= restored_threads <= numba.config.NUMBA_NUM_THREADS
    for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        fffcpu.set_num_threads(np.int64(threads))
        assert fffcpu.get_num_threads() == threads


@pytest.mark.parametrize(
    ("threads", "error"),
    [
        (0, ArgumentError),
        (-1, ArgumentError),
        (numba.config.NUMBA_NUM_THREADS + 1, ArgumentError),
        (True, ArgumentTypeError),
        ("a", ArgumentTypeError),
        (1.0, ArgumentTypeError),
        (None, ArgumentTypeError),
    ],
)
def test_impossible_number_of_threads_is_an_error_and_changes_nothing(
    restored_threads, threads, error
):
    most = numba.config.NUMBA_NUM_THREADS
    message = f"argument 'threads' must be an integer from 1 to {most}, got "
    with pytest.raises(error, match=message):
        fffcpu.set_num_threads(threads)
    assert fffcpu.get_num_threads() == restored_threads


# --- Launching ------------------------------------------------------------------------------------


class Recorder:
    """Stands for the serial and the parallel kernel of a pair, and says which was called how."""

    def __init__(self):
        self.calls = []

    def serial(self, *arguments):
        self.calls.append(("serial", arguments))

    def parallel(self, *arguments):
        self.calls.append(("parallel", arguments))


# --- Default threads ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "rubbish"}, 8),
        ({}, 8),
    ],
)
def test_a_limit_of_the_control_group_lowers_the_default(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(jit, "CGROUP", tmp_path)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 8)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert jit.default_threads() == expected
    monkeypatch.setenv("NUMBA_NUM_THREADS", "8")
    assert jit.default_threads() == 8


WAITING = """
import os
import sys
from fffcpu.kernels import jit
import numba
seen = []
numba.get_num_threads = lambda: seen.append(os.environ.get("OMP_WAIT_POLICY")) or 1
numba.set_num_threads = lambda number: None
for _ in range(2):
    jit._pool.run(lambda *arguments: None, ())
print(seen[0], os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.slow
def test_idle_threads_of_the_pool_sleep_unless_the_user_says_otherwise(program):
    path = program(WAITING)
    assert run(path) == ["passive None"]
    assert run(path, OMP_WAIT_POLICY="active") == ["active active"]


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(jit._pool, "threads", 1 if numba.config.NUMBA_NUM_THREADS == 1 else 2)
    return Recorder()


ENOUGH = jit.MIN_PARALLEL_WORK


def launch(recorder, items, work):
    jit.launch(recorder.serial, recorder.parallel, items, work, "x")
    return recorder.calls


def test_small_work_stays_on_the_thread_of_the_caller(recorder):
    assert launch(recorder, 3, ENOUGH // 3 - 1) == [("serial", ("x", 0, 3))]


def test_large_work_goes_to_the_pool(recorder):
    threads = jit.threads()
    expected = ("parallel", ("x", 4, threads)) if threads > 1 else ("serial", ("x", 0, 4))
    assert launch(recorder, 4, ENOUGH // 4) == [expected]


def test_one_thread_needs_no_pool(recorder, monkeypatch):
    monkeypatch.setattr(jit._pool, "threads", 1)
    assert launch(recorder, 4, ENOUGH) == [("serial", ("x", 0, 4))]


def test_busy_pool_is_not_waited_for(recorder):
    with jit._pool.lock:
        assert launch(recorder, 4, ENOUGH) == [("serial", ("x", 0, 4))]


def test_lost_pool_is_not_used(recorder, monkeypatch):
    monkeypatch.setattr(jit._pool, "usable", False)
    assert launch(recorder, 4, ENOUGH) == [("serial", ("x", 0, 4))]


def test_pool_is_free_again_after_an_error(recorder):
    def failing(*arguments):
        raise ZeroDivisionError

    recorder.parallel = recorder.serial = failing
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            launch(recorder, 4, ENOUGH)
    assert jit._pool.lock.acquire(blocking=False)
    jit._pool.lock.release()


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

from fffcpu.kernels import rowwise, simd

dispatchers = {
    name: value
    for module in (rowwise, simd)
    for name, value in vars(module).items()
    if hasattr(value, "signatures")
}
assert {"_path_infer", "_path_infer_parallel", "dot", "weighted_sum"} <= set(dispatchers)
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
    from fffcpu.kernels import vectorized

    expected = np.empty_like(y)
    vectorized.path_infer(expected, x, *layer.params.values(), int(Activation.GELU))
    np.testing.assert_allclose(y, expected, atol=1e-6)
    return [f"{w.category.__name__}: {w.message}" for w in caught]


def stats():
    from fffcpu.kernels import rowwise

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
def test_where_no_folder_is_writable_the_first_call_works_with_one_warning(program, tmp_path):
    nowhere = """
import tempfile


def refuse(*arguments, **keywords):
    raise OSError("read-only file system")


tempfile.TemporaryFile = refuse  # with which Numba tries out a folder
"""
    (tmp_path / "file").touch()
    no_home = str(tmp_path / "file" / "home")  # which cannot be made either
    warning, stats = run(program(nowhere, FIRST_CALL, REPORT), HOME=no_home)
    assert warning.startswith(WARNING)
    assert "NUMBA_CACHE_DIR" in warning
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
        return run(self.program, self.package, NUMBA_CACHE_DIR=str(cache))

    def copy_cache(self, folder):
        return shutil.copytree(self.cache, folder / "cache")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("installed"))


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
@pytest.mark.parametrize("name", ["kernels/simd.py", "config.py"])
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
def test_code_of_another_signature_is_not_taken_from_the_cache(monkeypatch):
    from fffcpu.kernels import rowwise

    found = SimpleNamespace(signature=SimpleNamespace(args=("float64",)))
    monkeypatch.setattr(FunctionCache, "load_overload", lambda *_: found)
    cache = rowwise._path_logits._cache
    assert cache.load_overload(("float64",), None) is found
    assert cache.load_overload(("float32",), None) is None
