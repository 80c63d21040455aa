"""The control groups of a process, from files like those of Linux."""

from __future__ import annotations

import pytest

from fffcpu.system import cgroups

V2 = "22 1 0:21 / /unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "23 1 0:22 / /cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "24 1 0:23 / /memory rw - cgroup cgroup rw,memory\n"
)
OTHERS = "25 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Make the files of a process, and folders of groups."""

    def make(cgroup, mountinfo, *folders):
        process = tmp_path / "proc" / "self"
        process.mkdir(parents=True, exist_ok=True)
        (process / "cgroup").write_text(cgroup)
        (process / "mountinfo").write_text(OTHERS + mountinfo)
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(cgroups, "ROOT", tmp_path)
        return tmp_path

    return make


def names(root, controller):
    found = cgroups.groups(controller)
    return [(str(group.path.relative_to(root)), group.version) for group in found]


def test_version_2_has_one_tree_for_all(system):
    root = system("0::/a.slice/job\n", V2, "unified/a.slice/job")
    found = [("unified/a.slice/job", 2), ("unified/a.slice", 2), ("unified", 2)]
    assert names(root, "memory") == names(root, "cpu") == found


def test_version_1_has_a_tree_for_each_controller(system):
    groups = "4:memory:/m/job\n3:cpu,cpuacct:/c\n1:name=systemd:/x\n"
    root = system(groups, V1, "memory/m/job", "cpu,cpuacct/c")
    assert names(root, "memory") == [("memory/m/job", 1), ("memory/m", 1), ("memory", 1)]
    assert names(root, "cpu") == [("cpu,cpuacct/c", 1), ("cpu,cpuacct", 1)]


def test_both_versions_count_where_both_are_mounted(system):
    root = system("4:memory:/m\n0::/u\n", V1 + V2, "memory/m", "unified/u")
    found = [("memory/m", 1), ("memory", 1), ("unified/u", 2), ("unified", 2)]
    assert names(root, "memory") == found


@pytest.mark.parametrize(
    ("path", "mounted"),
    [
        ("/docker/1f/own", "/docker/1f"),  # the host's tree, seen from a container
        ("/../other", "/"),  # a group outside of the namespace
        ("/elsewhere", "/docker/1f"),
    ],
)
def test_a_container_sees_a_part_of_the_tree(system, path, mounted):
    root = system(f"0::{path}\n", V2.replace(" / /", f" {mounted} /"), "unified/own")
    expected = [("unified", 2)]
    if path.startswith(mounted + "/own"):
        expected.insert(0, ("unified/own", 2))
    assert names(root, "memory") == expected


def test_spaces_in_paths_are_octal_numbers(system, tmp_path):
    spaced = V2.replace("/unified", r"/uni\040fied")
    root = system("0::/my job\n", spaced, "uni fied/my job")
    assert names(root, "memory") == [("uni fied/my job", 2), ("uni fied", 2)]


def test_folders_that_are_not_shown_are_passed_over(system):
    root = system("0::/a/b/c\n", V2, "unified/a")
    assert names(root, "memory") == [("unified/a", 2), ("unified", 2)]


def test_other_systems_have_none(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "nowhere")
    assert cgroups.groups("memory") == []


def test_files_are_read_as_far_as_they_hold_numbers(tmp_path):
    path = tmp_path / "file"
    assert cgroups.read_number(path) is None
    assert cgroups.read_named_numbers(path) == {}
    path.write_text("max\n")
    assert cgroups.read_number(path) is None
    path.write_text("12\n")
    assert cgroups.read_number(path) == 12
    path.write_text("MemFree:   7 kB\ninactive_file 9\nName:\tx\n")
    assert cgroups.read_named_numbers(path) == {"MemFree": 7, "inactive_file": 9}
