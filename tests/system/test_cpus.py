"""The CPUs that a process may use: affinity, and quotas in trees of files like those of Linux."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from benchmarks.control_group import joining, one_cpu
from fffcpu.system import cpus
from tests.support.paths import PACKAGE

V2 = "cgroup2 cgroup2 rw,nsdelegate"
V1 = "cgroup cgroup rw,cpu,cpuacct"
HYBRID = {"/sys/fs/cgroup/unified": V2, "/sys/fs/cgroup/cpu,cpuacct": V1}


def mountinfo(mounts, tops=None):
    """Lines of mountinfo for folders and what is mounted there, with the group at each top."""
    lines = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"]
    for folder, system in mounts.items():
        lines.append(f"30 22 0:26 {(tops or {}).get(folder, '/')} {folder} rw shared:9 - {system}")
    return "".join(line + "\n" for line in lines)


def tree(root, files):
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def v1(folder, quota, period=100000):
    return {
        f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{folder}/cpu.cfs_period_us": f"{period}\n",
    }


GROUP = "/sys/fs/cgroup"
LAYOUTS = {
    "v2, a container's own root": (
        "0::/",
        {GROUP: V2},
        {},
        {f"{GROUP}/cpu.max": "250000 100000"},
        2.5,
    ),
    "v2, no limit": ("0::/", {GROUP: V2}, {}, {f"{GROUP}/cpu.max": "max 100000"}, math.inf),
    "v2, root without the file": ("0::/", {GROUP: V2}, {}, {}, math.inf),
    "v2, a unit's own group": (
        *("0::/system.slice/my.service", {GROUP: V2}, {}),
        *({f"{GROUP}/system.slice/my.service/cpu.max": "100000 100000"}, 1),
    ),
    "v2, the slice above": (
        *("0::/a.slice/b.slice/c.service", {GROUP: V2}, {}),
        {
            f"{GROUP}/a.slice/cpu.max": "150000 100000",
            f"{GROUP}/a.slice/b.slice/cpu.max": "max 100000",
            f"{GROUP}/a.slice/b.slice/c.service/cpu.max": "400000 100000",
        },
        1.5,
    ),
    "v2, the least is the own one": (
        *("0::/a/b", {GROUP: V2}, {}),
        *({f"{GROUP}/a/cpu.max": "400000 100000", f"{GROUP}/a/b/cpu.max": "50000 100000"}, 0.5),
    ),
    "v2, a group beside it": (
        *("0::/a/b", {GROUP: V2}, {}),
        *({f"{GROUP}/a/c/cpu.max": "100000 100000", f"{GROUP}/ab/cpu.max": "1 1"}, math.inf),
    ),
    "v2, the group is gone, not those above": (
        *("0::/a/gone", {GROUP: V2}, {}),
        *({f"{GROUP}/a/cpu.max": "200000 100000"}, 2),
    ),
    "v2, a group with spaces": (
        *("0::/my group", {r"/sys/fs/my\040cgroup": V2}, {}),
        *({"/sys/fs/my cgroup/my group/cpu.max": "200000 100000"}, 2),
    ),
    "v2, a mount of the pod's group": (
        *("0::/kube/pod/box/inner", {GROUP: V2}, {GROUP: "/kube/pod"}),
        *({f"{GROUP}/cpu.max": "300000 100000", f"{GROUP}/box/cpu.max": "200000 100000"}, 2),
    ),
    "v2, seen through another namespace": (
        *("0::/../../a", {GROUP: V2}, {GROUP: "/../.."}),
        *({f"{GROUP}/a/cpu.max": "100000 100000", f"{GROUP}/cpu.max": "300000 100000"}, 1),
    ),
    "v2, above the namespace's root": (
        *("0::/../other", {GROUP: V2}, {}),
        *({f"{GROUP}/cpu.max": "300000 100000", "/sys/fs/other/cpu.max": "100000 100000"}, 3),
    ),
    "v2, below a mount that starts higher": (
        *("0::/", {GROUP: V2}, {GROUP: "/../.."}),
        *({f"{GROUP}/cpu.max": "200000 100000", "/sys/cpu.max": "100000 100000"}, 2),
    ),
    "v2, another group's mount is passed over": (
        *("0::/mine", {GROUP: V2, "/mnt/other": V2}, {"/mnt/other": "/other"}),
        *({f"{GROUP}/mine/cpu.max": "300000 100000", "/mnt/other/cpu.max": "100000 100000"}, 3),
    ),
    "v2, rubbish": ("0::/", {GROUP: V2}, {}, {f"{GROUP}/cpu.max": "rubbish"}, math.inf),
    "v2, no period": ("0::/", {GROUP: V2}, {}, {f"{GROUP}/cpu.max": "100000 0"}, math.inf),
    "v1, a container": (
        *("4:cpu,cpuacct:/", {f"{GROUP}/cpu,cpuacct": V1}, {}),
        *(v1(f"{GROUP}/cpu,cpuacct", 200000), 2),
    ),
    "v1, no limit": (
        *("4:cpu:/", {f"{GROUP}/cpu": "cgroup cgroup rw,cpu"}, {}),
        *(v1(f"{GROUP}/cpu", -1), math.inf),
    ),
    "v1, the group above": (
        *("4:cpuacct,cpu:/slurm/job/step", {f"{GROUP}/cpu,cpuacct": V1}, {}),
        {
            **v1(f"{GROUP}/cpu,cpuacct/slurm/job", 100000),
            **v1(f"{GROUP}/cpu,cpuacct/slurm", 800000),
        },
        1,
    ),
    "v1, a mount of the container's group": (
        *("4:cpu,cpuacct:/docker/box", {f"{GROUP}/cpu": V1}, {f"{GROUP}/cpu": "/docker/box"}),
        *(v1(f"{GROUP}/cpu", 150000, 50000), 3),
    ),
    "v1, a mount that does not show the group": (
        *("4:cpu,cpuacct:/", {f"{GROUP}/cpu": V1}, {f"{GROUP}/cpu": "/docker/box"}),
        *(v1(f"{GROUP}/cpu", 100000), 1),
    ),
    "v1, mounted elsewhere": (
        *("7:cpu:/a", {"/cgroups/cpu": "cgroup none rw,cpu"}, {}),
        *(v1("/cgroups/cpu/a", 100000), 1),
    ),
    "v1, other controllers do not count": (
        *("4:cpuset:/a\n5:cpuacct:/a", {f"{GROUP}/cpuset": "cgroup cgroup rw,cpuset"}, {}),
        *(v1(f"{GROUP}/cpuset/a", 100000), math.inf),
    ),
    "v1, half of the files": (
        *("4:cpu:/", {f"{GROUP}/cpu": "cgroup cgroup rw,cpu"}, {}),
        *({f"{GROUP}/cpu/cpu.cfs_quota_us": "100000"}, math.inf),
    ),
    "hybrid, v1 limits": (
        *("4:cpu,cpuacct:/user/1\n1:name=systemd:/x\n0::/user/1", HYBRID, {}),
        *(v1(f"{GROUP}/cpu,cpuacct/user", 100000), 1),
    ),
    "hybrid, both limit": (
        *("4:cpu,cpuacct:/a\n0::/b", HYBRID, {}),
        *(
            {**v1(f"{GROUP}/cpu,cpuacct/a", 300000), f"{GROUP}/unified/b/cpu.max": "200000 100000"},
            2,
        ),
    ),
    "a colon in a group's name": (
        *("0::/a:b", {GROUP: V2}, {}),
        *({f"{GROUP}/a:b/cpu.max": "100000 100000"}, 1),
    ),
    "no control groups": ("", {}, {}, {}, math.inf),
}


@pytest.mark.parametrize(
    ("groups", "mounts", "tops", "files", "expected"), LAYOUTS.values(), ids=LAYOUTS
)
def test_the_least_quota_of_all_groups_above_counts(
    groups, mounts, tops, files, expected, tmp_path
):
    proc = {"proc/self/cgroup": f"{groups}\n", "proc/self/mountinfo": mountinfo(mounts, tops)}
    assert cpus.cpu_quota(tree(tmp_path, {**proc, **files})) == expected


@pytest.mark.parametrize(
    "files",
    [
        {f"{GROUP}/cpu.max": "100000 100000"},
        v1(f"{GROUP}/cpu", 100000),
        v1(f"{GROUP}/cpu,cpuacct", 100000),
        {f"{GROUP}/a/cpu.max": "100000 100000", "proc/self/cgroup": "0::/a/b\n"},
    ],
)
def test_without_a_list_of_mounts_the_usual_ones_are_taken(files, tmp_path):
    assert cpus.cpu_quota(tree(tmp_path, files)) == 1


@pytest.mark.parametrize(
    "name", ["proc/self/cgroup", "proc/self/mountinfo", f"{GROUP[1:]}/cpu.max"]
)
def test_what_cannot_be_read_is_no_limit_and_no_error(name, tmp_path):
    (tmp_path / name).mkdir(parents=True)  # which cannot be read as a file, whoever asks
    assert cpus.cpu_quota(tmp_path) == math.inf


@pytest.mark.parametrize("text", [b"\n\n:\n::\n0:\nnonsense", b"\xff\x00"])
def test_files_of_another_format_are_no_error(text, tmp_path):
    for name in ("cgroup", "mountinfo"):
        tree(tmp_path, {f"proc/self/{name}": ""})
        (tmp_path / "proc/self" / name).write_bytes(text)
    assert cpus.cpu_quota(tmp_path) == math.inf


KIB, MIB = 1 << 10, 1 << 20
FIRST = {"index0/level": "1\n", "index0/size": "48K\n"}
THIRD = {"index3/level": "3\n", "index3/size": "32768K\n"}
CACHES = {
    "no folder": ({}, MIB),
    "KiB": ({"index2/level": "2\n", "index2/size": "2048K\n"}, 2 * MIB),
    "MiB": ({"index2/level": "2\n", "index2/size": "1M\n"}, MIB),
    "several MiB": ({"index2/level": "2\n", "index2/size": "4M\n"}, 4 * MIB),
    "without a newline": ({"index2/level": "2", "index2/size": "512K"}, 512 * KIB),
    "other levels do not count": ({**FIRST, **THIRD}, MIB),
    "between other levels": (
        {**FIRST, **THIRD, "index2/level": "2\n", "index2/size": "256K\n"},
        256 * KIB,
    ),
    "no size": ({"index2/level": "2\n"}, MIB),
    "no level": ({"index2/size": "2048K\n"}, MIB),
    "an empty size": ({"index2/level": "2\n", "index2/size": ""}, MIB),
    "an empty level": ({"index2/level": "", "index2/size": "2048K\n"}, MIB),
    "a unit alone": ({"index2/level": "2\n", "index2/size": "K\n"}, MIB),
    "no number": ({"index2/level": "2\n", "index2/size": "unknown\n"}, MIB),
    "a part of a number": ({"index2/level": "2\n", "index2/size": "1.5M\n"}, MIB),
    "another index is whole": (
        {
            "index1/level": "2\n",
            "index1/size": "damaged",
            "index2/level": "2\n",
            "index2/size": "2048K\n",
        },
        2 * MIB,
    ),
}


@pytest.mark.parametrize(("files", "expected"), CACHES.values(), ids=CACHES)
def test_the_size_of_the_second_cache_is_read(files, expected, tmp_path):
    assert cpus.cache_bytes(tree(tmp_path / "cache", files)) == expected


@pytest.mark.parametrize("name", ["level", "size"])
def test_cache_files_that_cannot_be_read_are_no_error(name, tmp_path):
    tree(tmp_path, {"index2/level": "2\n", "index2/size": "2048K\n"})
    (tmp_path / "index2" / name).write_bytes(b"\xff\x00")
    assert cpus.cache_bytes(tmp_path) == MIB
    (tmp_path / "index2" / name).unlink()
    (tmp_path / "index2" / name).mkdir()
    cpus.cache_bytes.cache_clear()
    assert cpus.cache_bytes(tmp_path) == MIB


def test_this_machine_has_a_cache_of_some_size():
    assert cpus.cache_bytes() > 0


@pytest.mark.parametrize(
    ("pool", "affinity", "quota", "expected"),
    [
        (8, 8, math.inf, 8),
        (8, 2, math.inf, 2),
        (2, 8, math.inf, 2),
        (8, 8, 2.5, 3),
        (8, 8, 0.5, 1),
        (8, 2, 4, 2),
        (8, 64, 1, 1),
    ],
)
def test_the_least_of_three_limits_decides(pool, affinity, quota, expected, monkeypatch):
    monkeypatch.setattr(cpus, "affinity", lambda: affinity)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: quota)
    assert cpus.default_threads(pool) == expected


def test_where_the_system_has_no_affinity_all_cpus_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpus.affinity() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.affinity() == 1


NUMBER = "import fffcpu, numba; print(fffcpu.get_num_threads(), numba.config.NUMBA_NUM_THREADS)"


def number_of_threads(*before, **variables):
    """Numbers of threads of kernels and of Numba's pool, in a process that a command starts."""
    done = subprocess.run(
        [*before, sys.executable, "-c", NUMBER],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(map(int, done.stdout.split()))


def test_a_real_control_group_limits_threads_through_the_group_above():
    try:
        with one_cpu() as group:
            number, _ = number_of_threads(*joining(group))
            asked_for_more = number_of_threads(*joining(group), NUMBA_NUM_THREADS="2")
    except OSError as error:
        pytest.skip(f"this process may make no control group: {error}")
    assert number == 1
    assert asked_for_more == (1, 2)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_limits_threads_also_if_more_are_asked_for():
    code = f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); {NUMBER}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "NUMBA_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1", "2"]
