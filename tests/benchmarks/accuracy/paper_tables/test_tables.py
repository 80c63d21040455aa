"""The tables: cells, runs and what is shown of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest

from benchmarks.accuracy.paper_tables import cells, speed
from benchmarks.accuracy.paper_tables.__main__ import main
from benchmarks.accuracy.paper_tables.runs import key_of
from benchmarks.accuracy.paper_tables.show import Summary
from benchmarks.data import tables
from benchmarks.records import read_records
from fffcpu.recipes.fitting import FitSettings


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """The folders of data and results: few letters, of which 40 are to test on, and few layers."""
    x = np.random.default_rng(5).standard_normal((200, 4)).astype(np.float32).round(3)
    names = np.where(x[:, 0] > 0, "A", "B")
    frame = pandas.DataFrame(x, columns=list("abcd")).assign(**{"class": names})
    frame.to_csv(tmp_path / "letters.csv", index=False)
    monkeypatch.setattr(tables, "TEST_ROWS", {"letters": 40, "satellite": 30})
    monkeypatch.setattr(cells, "WIDTHS", (16,))
    return str(tmp_path), str(tmp_path / "out")


def lines(folder: str, table: str) -> list[dict]:
    return read_records(Path(folder) / f"{table}.jsonl")


def test_a_paper_table_is_made_seed_by_seed(letters, capsys):
    main(["table1", *letters, "--data", "letters", "--seeds", "2", "--epochs", "1"])
    found = lines(letters[1], "table1")
    assert [run["seed"] for run in found] == [0] * 5 + [1] * 5
    assert [run["layer"] for run in found] == ["dense", "leaf", "leaf", "leaf", "leaf"] * 2
    assert [run["neurons"]["used"] for run in found[:5]] == [16, 8, 4, 2, 1]
    assert {run["neurons"]["held"] for run in found} == {16}
    for run in found:
        assert run["settings"]["epochs"] == 1
        for name, count in (("train", 144), ("validation", 16), ("test", 40)):
            right = run[name] * count
            assert right == pytest.approx(round(right), abs=1e-6)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 + 5
    assert shown[2].startswith("| letters | 16 | dense | 2 | ")


def test_a_paper_table_continues_where_it_was_killed(letters, capsys):
    command = ["trees", *letters, "--data", "letters", "--seeds", "1", "--epochs", "1"]
    command += ["--active", "4"]
    main(command)
    path = Path(letters[1]) / "trees.jsonl"
    whole, done = path.read_bytes(), lines(letters[1], "trees")
    assert [run["sizes"] for run in done] == [
        {"trees": 1, "depth": 3},
        {"trees": 2, "depth": 1},
        {"trees": 4, "depth": 0},
        {"width": 4},
    ]
    table = capsys.readouterr().out
    assert [line.split(" | ")[2] for line in table.splitlines()[2:]] == [
        *("4 of 15", "4 of 6", "4 of 4", "4 of 4"),
    ]

    path.write_bytes(whole[:-40])  # killed while it wrote the last line
    main([*command, "--show"])
    assert path.read_bytes() == whole[:-40]
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "| letters | dense 4 | 4 of 4 | 0 | - | - | - | - | - |"
    )

    main(command)
    resumed = lines(letters[1], "trees")
    assert resumed[:3] == done[:3]  # the seconds too: these were not done again
    assert {**resumed[3], "seconds": 0} == {**done[3], "seconds": 0}
    assert capsys.readouterr().out == table

    main(command)
    assert lines(letters[1], "trees") == resumed


def test_generalization_is_of_the_run_that_validates_best():
    figures = ((0.9, 0.7, 0.75), (0.8, 0.8, 0.5), (0.95, 0.75, 0.6))
    names = ("train", "validation", "test")
    found = Summary([dict(zip(names, run, strict=True)) for run in figures])
    assert found.memorization() == "95.0"
    assert found.generalization() == "50.0"
    assert found.mean("test") == "61.7 (50.0 to 75.0)"
    nothing = Summary([])
    assert (nothing.memorization(), nothing.generalization(), nothing.mean("test")) == ("-",) * 3


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        (16, [(1, 15), (2, 7), (4, 3), (8, 1), (16, 0)]),
        (28, [(2, 13), (4, 6), (7, 3), (14, 1), (28, 0)]),
    ],
)
def test_forests_use_equally_many_neurons(active, expected):
    sizes = cells.tree_sizes(active)
    assert [(size["trees"], size["depth"]) for size in sizes] == expected


@pytest.mark.parametrize("data", cells.DATA)
def test_all_runs_of_the_paper_tables_have_possible_settings(data):
    every = [
        *cells.table1_cells([data]),
        *cells.trees_cells([data], 16),
        *cells.trees_cells([data], 16, learn=False),
        *cells.methods_cells([data]),
        *cells.choose_cells([data]),
    ]
    for cell in every:
        FitSettings(layer=cell.layer, seed=0, **cell.sizes, **cell.settings)
    for own in (cells.methods_cells([data]), cells.choose_cells([data])):
        keys = [key_of(cell.run(0)) for cell in own]
        assert len(set(keys)) == len(keys)


@pytest.mark.slow
def test_the_speed_of_the_paper_table_goes_into_it(letters, monkeypatch, capsys):
    monkeypatch.setattr(speed, "BATCH", 8)
    monkeypatch.setattr(speed, "REPEATS", 1)
    main(["speed", letters[1], "--data", "letters"])
    found = lines(letters[1], "speed")
    assert [record["leaf_width"] for record in found] == [8, 4, 2, 1]
    capsys.readouterr()
    main(["table1", *letters, "--data", "letters", "--show"])
    shown = [line.split(" | ")[-1] for line in capsys.readouterr().out.splitlines()[3:]]
    assert shown == [f"{record['times_faster']:.1f} |" for record in found]
