"""The pool of threads: its layer, who may use it when, forks, and numbers of threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import types

import numba
import numpy as np
import pytest

import fffcpu
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.kernels import jit
from fffcpu.system import pool
from tests.support.processes import FORKS, LAYERS, available_layers, run

# --- The thread layer -----------------------------------------------------------------------------

START = """
import os
import sys
import warnings
import numba
from fffcpu.system.threads import get_thread_layer
from fffcpu.system import pool

warnings.simplefilter("error")
for name in sys.argv[1:]:
    sys.modules[f"numba.np.ufunc.{name}"] = None  # as if it could not be loaded
loaded = []
load_tbb = pool.load_tbb
pool.load_tbb = lambda: loaded.append(load_tbb())
assert pool._running_layer() is None, "importing starts the pool"


def settings():
    config = numba.config
    return config.THREADING_LAYER, list(config.THREADING_LAYER_PRIORITY), dict(os.environ)


"""

STARTED_BY_US = """
before = settings()
print(get_thread_layer(), numba.threading_layer(), len(loaded))
assert settings() == before, "a setting was left behind"
get_thread_layer()
assert len(loaded) < 2
"""


@pytest.mark.slow
@pytest.mark.parametrize("absent", [(), ("tbbpool",), ("tbbpool", "omppool")])
def test_first_layer_that_loads_is_taken_without_a_word(program, absent):
    left = [layer for layer in available_layers() if layer not in ("tbb", "omp")[: len(absent)]]
    assert run(program(START, STARTED_BY_US), *absent) == [f"{left[0]} {left[0]} 1"]


def test_tbb_is_among_the_layers_where_it_is_a_dependency():
    wanted = any(
        requirement.startswith("tbb") and _applies(requirement.partition(";")[2])
        for requirement in importlib.metadata.requires("fffcpu")
    )
    assert ("tbb" in available_layers()) or not wanted


def _applies(marker):
    """Whether a marker of our own, made of plain comparisons, holds here."""
    names = {"sys_platform": sys.platform, "platform_machine": platform.machine()}
    return eval(marker, names) if marker else True


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY"])
@LAYERS
def test_layer_that_the_user_names_is_taken(program, name, threading_layer):
    others = [layer for layer in ("workqueue", "omp", "tbb") if layer != threading_layer]
    value = threading_layer if name.endswith("LAYER") else " ".join([threading_layer, *others])
    (line,) = run(program(START, STARTED_BY_US), **{name: value})
    assert line.split()[:2] == [threading_layer] * 2


STARTED_BY_OTHERS = """
numba.config.THREADING_LAYER = "workqueue"
numba.get_num_threads()
numba.config.THREADING_LAYER = "default"
print(get_thread_layer(), len(loaded))
"""


@pytest.mark.slow
def test_pool_that_the_callers_code_started_is_used(program):
    assert run(program(START, STARTED_BY_OTHERS)) == ["workqueue 0"]


def test_library_that_cannot_be_loaded_is_passed_over(tmp_path, monkeypatch):
    damaged = tmp_path / pool.TBB_LIBRARY
    damaged.write_bytes(b"no library")
    monkeypatch.setattr(pool, "_tbb_paths", lambda: iter([tmp_path / "absent", damaged]))
    assert pool.load_tbb() is False


def test_library_is_looked_for_where_its_wheel_says_and_in_the_environment(monkeypatch):
    class File:
        name = pool.TBB_LIBRARY

        def locate(self):
            return f"/wheel/{self.name}"

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(pool.importlib.metadata, "files", lambda name: [File()])
    first, last = pool._tbb_paths()
    assert first.name == last.name == pool.TBB_LIBRARY
    assert first.parent.name == "wheel"
    assert last.is_relative_to(sys.prefix)
    for files in (missing, lambda name: None):
        monkeypatch.setattr(pool.importlib.metadata, "files", files)
        assert list(pool._tbb_paths()) == [last]


# --- Threads of the caller ------------------------------------------------------------------------

SAME_LAYER = """
import numba
import numpy as np
from fffcpu import FastFeedForward
from fffcpu.kernels import jit
from fffcpu.system.pool import POOL

POOL.threads = POOL.most = numba.config.NUMBA_NUM_THREADS  # also where there are fewer CPUs
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
from fffcpu.system.pool import POOL

THREADS, CALLS = 16, 1000
barrier = threading.Barrier(THREADS)
seen = [set() for _ in batches]
done = []
pooled = []
run = POOL.run


def counted_run(*arguments):
    answer = run(*arguments)
    pooled.append(answer)
    return answer


POOL.run = counted_run


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
from concurrent.futures import ProcessPoolExecutor
import joblib
import numba
import fffcpu
from fffcpu.system import pool
from fffcpu.system.pool import POOL


def check(expected):
    return [layer(batch).tobytes() for batch in batches] == expected


def fork(child, end=sys.exit):
    # The exit status of a child; a true answer of the function is status 0. It ends by way of all
    # that an ending interpreter does.
    process = os.fork()
    if not process:
        end(0 if child() else 3)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def in_thread(function):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    return answers[0]


def main():
    expected = right_answers()

    def right():
        return check(expected)

    assert fork(right) == 0, "before the pool was started"
    assert right()
    layer_name = numba.threading_layer()
    print(layer_name)
    assert fork(right) == 0, "after the pool was started"
    assert right()
    assert fork(lambda: POOL.usable == (layer_name != "omp")) == 0, "who may use the pool"
    assert fork(lambda: fork(right) == 0 and right()) == 0, "a grandchild"

    # A child of another thread than the one that started the pool; sys.exit would end its thread.
    def right_in_child_of_thread():
        return POOL.usable == (layer_name == "workqueue") and right()

    assert in_thread(lambda: fork(right_in_child_of_thread, os._exit)) == 0

    # A fork waits for a running kernel, but not forever.
    pool.FORK_WAIT = 100
    POOL.lock.acquire()
    threading.Timer(0.1, POOL.lock.release).start()
    assert fork(lambda: POOL.usable == (layer_name != "omp") and right()) == 0
    assert POOL.lock.acquire(blocking=False), "the parent's lock was not given back"
    pool.FORK_WAIT = 0.01
    assert fork(lambda: POOL.lock.acquire(blocking=False)) == 0, "the lock of another process"
    assert fork(lambda: POOL.usable == (layer_name == "workqueue") and right()) == 0
    assert not POOL.lock.acquire(blocking=False), "the parent's lock was taken from it"
    POOL.lock.release()
    pool.FORK_WAIT = 1

    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            layer(batches[-1])

    thread = threading.Thread(target=keep_busy)
    thread.start()
    codes = {fork(lambda: POOL.usable == (layer_name == "workqueue") and right()) for _ in range(8)}
    stop.set()
    thread.join()
    assert codes == {0}, f"while the pool was busy: {codes}"

    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as processes:
            assert processes.map(check, [expected] * 4) == [True] * 4, method
            processes.close()
            processes.join()
        with ProcessPoolExecutor(2, context) as processes:
            assert list(processes.map(check, [expected] * 4)) == [True] * 4, method
    assert joblib.Parallel(2)(joblib.delayed(check)(expected) for _ in range(4)) == [True] * 4
    assert right()


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


def test_module_that_is_kept_to_the_end_has_one_more_reference(monkeypatch):
    module = types.ModuleType("kept")
    monkeypatch.setitem(sys.modules, "kept", module)
    before = sys.getrefcount(module)
    pool._keep_to_the_end("kept")
    assert sys.getrefcount(module) == before + 1
    pool._keep_to_the_end("absent")


# --- The end of a process ------------------------------------------------------------------------

ON_ONE_CPU = """
import os
import sys
import threading
import fffcpu  # before NumPy
import numba
import numpy as np
from fffcpu.system.pool import POOL, load_tbb
from fffcpu.system.threads import get_thread_layer

load_tbb()  # so that Numba finds it, too, if it is the first
layer, x = fffcpu.FastFeedForward(64, 64, 5, rng=0), np.ones((5000, 64), np.float32)
if len(os.sched_getaffinity(0)) > 1:
    assert POOL.most == 2
POOL.threads = POOL.most = 2  # as on two CPUs
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # before TBB counts them


@numba.njit(parallel=True)
def users_own(y):
    for k in numba.prange(len(y)):
        y[k] += 1


def call(name):
    return {
        "layer": lambda: layer(x),
        "its name": get_thread_layer,
        "Numba": numba.get_num_threads,
        "Numba code": lambda: users_own(np.zeros(100)),
    }[name]()


def fork(name):
    process = os.fork()
    if not process:
        call(name)
        sys.exit()
    assert os.waitpid(process, 0)[1] == 0


first, second, forking = sys.argv[1:]
if first.startswith("main "):
    call(first.removeprefix("main "))
else:
    thread = threading.Thread(target=call, args=(first,))
    thread.start()
    thread.join()
call(second)
if forking:
    fork(second)
    call(second)
print(numba.threading_layer())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
@pytest.mark.parametrize(
    ("threading_layer", "first", "second", "forking"),
    [
        ("tbb", "layer", "layer", ""),
        ("tbb", "its name", "its name", ""),
        ("tbb", "Numba", "layer", ""),
        ("tbb", "layer", "Numba code", "forking"),
        ("tbb", "Numba code", "layer", "forking"),
        ("tbb", "main layer", "layer", "forking"),
        ("omp", "layer", "layer", "forking"),
        ("workqueue", "layer", "layer", "forking"),
    ],
)
def test_a_process_on_one_cpu_ends_whoever_starts_the_pool(
    program, threading_layer, first, second, forking
):
    if threading_layer not in available_layers():
        pytest.skip(f"this machine has no {threading_layer}")
    variables = {"NUMBA_THREADING_LAYER": threading_layer, "NUMBA_NUM_THREADS": "2"}
    lines = run(program(ON_ONE_CPU), first, second, forking, timeout=90, **variables)
    assert lines[-1] == threading_layer


# --- Variables that change later ------------------------------------------------------------------

CHANGED = """
import os
import sys
import numba
import numpy as np
import fffcpu
from fffcpu.kernels import jit
from fffcpu.system.pool import POOL

changed = dict(pair.split("=") for pair in sys.argv[2:])
POOL.threads = POOL.most = 2  # also where there are fewer CPUs


@jit.kernel
def count(out, start, stop):
    for k in range(start, stop):
        out[k] += 1


fffcpu.kernels.choose()
if sys.argv[1] == "running":
    fffcpu.system.threads.get_thread_layer()
os.environ.update(changed)
out = np.zeros(4)
jit.launch(count, 4, jit.MIN_PARALLEL_WORK, out)
jit.kernel(lambda out, start, stop: None)(out, 0, 4)
assert out.tolist() == [1] * 4
print(numba.threading_layer(), POOL.threads, fffcpu.kernels.choose().__name__)
print(*jit.loads(count))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["running", "not started"])
def test_variables_that_change_later_change_nothing(program, tmp_path, moment):
    changes = {
        "NUMBA_NUM_THREADS": "7",
        "NUMBA_THREADING_LAYER": "workqueue" if "tbb" in available_layers() else "tbb",
        "NUMBA_CACHE_DIR": str(tmp_path / "other"),
        "NUMBA_DISABLE_JIT": "1",
        "FFFCPU_BACKEND": "nonsense",
    }
    path, cache = program(CHANGED), tmp_path / "cache"
    printed = []
    for _ in range(2):  # the kernels are compiled, and then found in the cache
        given = [f"{name}={value}" for name, value in changes.items()]
        variables = {"NUMBA_NUM_THREADS": "2", "NUMBA_CACHE_DIR": str(cache)}
        printed += run(path, moment, *given, **variables)
        assert list(cache.rglob("*.nbc"))
        assert not (tmp_path / "other").exists()
    first = next(iter(available_layers()))
    same = f"{first} 2 fffcpu.kernels.backends.rowwise"
    assert printed == [same, "1 0", same, "0 1"]


def test_kernels_compile_also_if_numba_has_been_turned_off_since(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    kernel = jit.kernel(lambda out, start, stop: None)
    assert hasattr(kernel, "signatures") == jit.JIT
    assert hasattr(jit.inner(lambda out: out), "signatures") == jit.JIT


# --- Numbers of threads ---------------------------------------------------------------------------

HASHES = """
import hashlib
import numba
import numpy as np
import fffcpu
from fffcpu import FastFeedForward, LeafFeedForward, cmm, kernels
from fffcpu.kernels import jit
from fffcpu.system import pool


jit.MIN_PARALLEL_WORK = 1 << 16  # each kernel, both steps of the backward included, is above
default = kernels.choose


def bits():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 150)).astype(np.float32)
    dy = rng.standard_normal((1000, 140)).astype(np.float32)
    fast = FastFeedForward(150, 140, 5, trees=3, rng=1)
    leaf = LeafFeedForward(150, 140, 5, 8, rng=2)
    y, cache = fast.forward(x)
    dx, grads = fast.backward(dy, cache, straight_through=True)
    logits, nodes = cmm(x, fast.params["weights_in"], fast.params["bias_in"])
    arrays = {
        "forward": y,
        "logits": logits,
        "nodes": nodes,
        "dx": dx,
        **grads,
    }
    for name in ("rowwise", "grouped"):
        backend = kernels.load_backend(name)
        kernels.choose = lambda *_, **__: backend
        arrays[f"forward {name}"] = fast.forward(x)[0]
        arrays[f"inference {name}"] = fast(x)
        arrays[f"route {name}"] = fast.route(x)
        arrays[f"leaf inference {name}"] = leaf(x)
        arrays[f"leaf route {name}"] = leaf.route(x)
    kernels.choose = default
    return {name: hashlib.sha256(array).hexdigest() for name, array in arrays.items()}


calls = []
run_on_pool = jit._run_on_pool


def counted(kernel, arguments, items):
    calls.append(kernel.__name__)
    return run_on_pool(kernel, arguments, items)


jit._run_on_pool = counted
most = pool.POOL.threads = pool.POOL.most = numba.config.NUMBA_NUM_THREADS
fffcpu.system.threads.get_thread_layer()  # which finds TBB; Numba alone would not
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

KERNELS = (
    "_gates",
    "_leaf_infer",
    "_leaf_route",
    "_leaves",
    "_path_choices",
    "_path_deltas",
    "_path_forward",
    "_path_gradients",
    "_path_infer",
    "_path_logits",
    "_paths",
)


@pytest.mark.slow
def test_bits_do_not_depend_on_the_number_of_threads(program):
    path = program(HASHES)
    layers = list(available_layers())
    *alone, kernels_alone = run(path, NUMBA_NUM_THREADS="1")
    assert kernels_alone == ""  # none on the pool
    for threads, layer in (("2", layers[0]), ("4", layers[-1])):
        *lines, kernels = run(path, NUMBA_NUM_THREADS=threads, NUMBA_THREADING_LAYER=layer)
        assert lines == alone
        assert kernels.split() == list(KERNELS)


@pytest.fixture
def restored_threads():
    """Number of threads, set back after the test."""
    before = fffcpu.get_num_threads()
    yield before
    fffcpu.set_num_threads(before)


def test_number_of_threads_can_be_set_and_asked(restored_threads):
    assert 1 <= restored_threads <= pool.POOL.most <= numba.config.NUMBA_NUM_THREADS
    for threads in range(1, pool.POOL.most + 1):
        fffcpu.set_num_threads(np.int64(threads))
        assert fffcpu.get_num_threads() == threads


@pytest.mark.parametrize(
    ("threads", "error"),
    [
        (0, ArgumentError),
        (-1, ArgumentError),
        (pool.POOL.most + 1, ArgumentError),
        (True, ArgumentTypeError),
        ("a", ArgumentTypeError),
        (1.0, ArgumentTypeError),
        (None, ArgumentTypeError),
    ],
)
def test_impossible_number_of_threads_is_an_error_and_changes_nothing(
    restored_threads, threads, error
):
    most = pool.POOL.most
    message = f"argument 'threads' must be an integer from 1 to {most}, got "
    with pytest.raises(error, match=message):
        fffcpu.set_num_threads(threads)
    assert fffcpu.get_num_threads() == restored_threads


# --- Default threads ------------------------------------------------------------------------------


WAITING = """
import os
import numba
from fffcpu.system.pool import POOL
seen = []
numba.get_num_threads = lambda: seen.append(os.environ.get("OMP_WAIT_POLICY")) or 1
numba.set_num_threads = lambda number: None
for _ in range(2):
    POOL.run(lambda *arguments: None, ())
print(seen[0], os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.slow
def test_idle_threads_of_the_pool_sleep_unless_the_user_says_otherwise(program):
    path = program(WAITING)
    assert run(path) == ["passive None"]
    assert run(path, OMP_WAIT_POLICY="active") == ["active active"]
