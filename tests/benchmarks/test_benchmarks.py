"""The scripts in benchmarks/ start, and every peer that is installed computes what it should."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from matplotlib.figure import Figure

from benchmarks.accuracy import methods, paper_tables
from benchmarks.crossover import __main__ as crossover
from benchmarks.data import tables
from benchmarks.peers import layers as peers
from fffcpu import DenseFeedForward, FastFeedForward
from fffcpu.data import Table, read_table
from fffcpu.recipes.fitting import FitSettings
from fffcpu.testing import oracle
from tests.support.finite_differences import check_gradients
from tests.support.paths import ROOT
from tests.support.processes import run_module

SCRIPTS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "benchmarks").rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]


def prepared(peer, params, activation):
    """The peer with these weights; skips where it is not installed."""
    if missing := peers.absent(peer):
        pytest.skip(missing)
    instance = peer(1)
    instance.prepare(params, activation)
    return instance


def of_kind(kind: str):
    return [pytest.param(peer, id=peer.__name__) for peer in peers.PEERS if peer.kind == kind]


def rows(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, width)).astype(np.float32)


def tree(trees: int = 2) -> FastFeedForward:
    return FastFeedForward(9, 5, 3, trees, rng=1)


@pytest.mark.parametrize("peer", of_kind("dense"))
@pytest.mark.parametrize("count", [1, 6])
def test_dense_peers_compute_the_dense_layer(peer, count):
    params = DenseFeedForward(9, 5, 21, rng=0).params
    x = rows(count, 9)
    as_trees = {name: array[:, np.newaxis] for name, array in params.items()}
    expected = oracle.path(x, **as_trees, activation=peer.activation).y
    np.testing.assert_allclose(
        peers.expected_dense(params, x, peer.activation), expected, atol=1e-12
    )
    y = prepared(peer, params, peer.activation).run(x)
    assert y.shape == (count, 5)
    assert np.abs(y - expected).max() <= peer.tolerance * np.abs(expected).max()


@pytest.mark.parametrize("peer", of_kind("path"))
@pytest.mark.parametrize("trees", [1, 3])
def test_path_peers_compute_the_path(peer, trees):
    layer, x = tree(trees), rows(40, 9)
    result = oracle.path(x, **layer.params)
    y = prepared(peer, layer.params, "gelu").run(x)
    safe = result.margin > 1e-5
    assert safe.sum() > 30
    assert np.abs(y - result.y)[safe].max() <= peer.tolerance * np.abs(result.y).max()


@pytest.mark.parametrize("peer", of_kind("step"))
def test_step_peers_compute_the_gradients(peer):
    layer, x, dy = tree(), rows(30, 9), rows(30, 5)
    assert oracle.path(x, **layer.params).margin.min() > 1e-5  # so routes agree
    step = prepared(peer, layer.params, "gelu")
    for _ in range(2):  # gradients of one call do not add to those of the last
        dx, grads = step.run(x, dy)
    expected_dx, expected = oracle.path_gradients(x, **layer.params, dy=dy)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-5)
    assert set(grads) == set(expected)
    for name, gradient in expected.items():
        np.testing.assert_allclose(grads[name], gradient, atol=1e-4, err_msg=name)


def test_an_absent_peer_is_named():
    class Absent(peers.Peer):
        name, modules = "Nobody's dense", ("numpy", "absent_module")

    message = "Nobody's dense: absent_module not installed, pip install 'fffcpu[bench]'"
    assert peers.absent(Absent) == message
    assert peers.absent(peers.NumpyDense) is None


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_explain_themselves(script):
    done = run_module(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.slow
def test_the_encoder_benchmark_checks_and_times_all_parts():
    arguments = ("--quick", "--rounds", "1", "--seconds", "0", "--count", "5", "--json")
    done = run_module("benchmarks.speed.encoder", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["races"]) == 4
    assert found["alone"]["masked positions"] >= 5
    assert found["alone"]["movement of a position's logits, largest"] < 1e-5
    if not peers.absent(peers.TorchMasked):
        assert any("4 of 4 sequences agree" in note for note in found["notes"])


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """The folders of data and results: few letters, of which 40 are to test on, and few layers."""
    x = rows(200, 4).round(3)
    names = np.where(x[:, 0] > 0, "A", "B")
    frame = pandas.DataFrame(x, columns=list("abcd")).assign(**{"class": names})
    frame.to_csv(tmp_path / "letters.csv", index=False)
    monkeypatch.setattr(tables, "TEST_ROWS", {"letters": 40, "satellite": 30})
    monkeypatch.setattr(paper_tables, "WIDTHS", (16,))
    return str(tmp_path), str(tmp_path / "out")


def lines(folder: str, table: str) -> list[dict]:
    text = (Path(folder) / f"{table}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_paper_table_is_made_seed_by_seed(letters, capsys):
    paper_tables.main(["table1", *letters, "--data", "letters", "--seeds", "2", "--epochs", "1"])
    found = lines(letters[1], "table1")
    assert [run["seed"] for run in found] == [0] * 5 + [1] * 5
    assert [run["layer"] for run in found] == ["dense", "leaf", "leaf", "leaf", "leaf"] * 2
    assert [run["neurons"]["used"] for run in found[:5]] == [16, 8, 4, 2, 1]
    assert {run["neurons"]["held"] for run in found} == {16}
    for run in found:
        assert run["settings"]["epochs"] == 1
        for part, count in (("train", 144), ("validation", 16), ("test", 40)):
            right = run[part] * count
            assert right == pytest.approx(round(right), abs=1e-6)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 + 5
    assert shown[2].startswith("| letters | 16 | dense | 2 | ")


def test_a_paper_table_goes_on_where_it_was_killed(letters, capsys):
    command = ["trees", *letters, "--data", "letters", "--seeds", "1", "--epochs", "1"]
    command += ["--active", "4"]
    paper_tables.main(command)
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
    paper_tables.main([*command, "--show"])
    assert path.read_bytes() == whole[:-40]
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "| letters | dense 4 | 4 of 4 | 0 | - | - | - | - | - |"
    )

    paper_tables.main(command)
    resumed = lines(letters[1], "trees")
    assert resumed[:3] == done[:3]  # the seconds too: these were not done again
    assert {**resumed[3], "seconds": 0} == {**done[3], "seconds": 0}
    assert capsys.readouterr().out == table

    paper_tables.main(command)
    assert lines(letters[1], "trees") == resumed


def test_generalization_is_of_the_run_that_validates_best():
    figures = ((0.9, 0.7, 0.75), (0.8, 0.8, 0.5), (0.95, 0.75, 0.6))
    names = ("train", "validation", "test")
    found = paper_tables.Summary([dict(zip(names, run, strict=True)) for run in figures])
    assert found.memorization() == "95.0"
    assert found.generalization() == "50.0"
    assert found.mean("test") == "61.7 (50.0 to 75.0)"
    nothing = paper_tables.Summary([])
    assert (nothing.memorization(), nothing.generalization(), nothing.mean("test")) == ("-",) * 3


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        (16, [(1, 15), (2, 7), (4, 3), (8, 1), (16, 0)]),
        (28, [(2, 13), (4, 6), (7, 3), (14, 1), (28, 0)]),
    ],
)
def test_forests_use_equally_many_neurons(active, expected):
    sizes = paper_tables.tree_sizes(active)
    assert [(size["trees"], size["depth"]) for size in sizes] == expected


@pytest.mark.parametrize("data", paper_tables.DATA)
def test_all_runs_of_the_paper_tables_have_possible_settings(data):
    cells = [
        *paper_tables.table1_cells([data]),
        *paper_tables.trees_cells([data], 16),
        *paper_tables.trees_cells([data], 16, learn=False),
        *paper_tables.methods_cells([data]),
        *paper_tables.choose_cells([data]),
    ]
    for cell in cells:
        FitSettings(layer=cell.layer, seed=0, **cell.sizes, **cell.settings)
    for part in (paper_tables.methods_cells([data]), paper_tables.choose_cells([data])):
        keys = [cell.key(0) for cell in part]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ["letters", "satellite"])
def test_rows_to_test_on_are_always_the_same(name, monkeypatch):
    monkeypatch.setattr(tables, "TEST_ROWS", {name: 30})
    numbers = np.arange(100)
    table = Table(numbers[:, np.newaxis], numbers % 3, classes=(0, 1, 2))
    training, test = tables.split_test(table, name)
    assert len(test.x) == 30
    assert sorted([*training.x[:, 0], *test.x[:, 0]]) == list(numbers)
    for part in (training, test):
        np.testing.assert_array_equal(part.y, part.x[:, 0] % 3)
    last = list(test.x[:, 0]) == list(range(70, 100))
    assert last == (name == "letters")
    np.testing.assert_array_equal(tables.split_test(table, name)[1].x, test.x)


@pytest.mark.slow
def test_the_speed_of_the_paper_table_goes_into_it(letters, monkeypatch, capsys):
    monkeypatch.setattr(paper_tables, "BATCH", 8)
    monkeypatch.setattr(paper_tables, "REPEATS", 1)
    paper_tables.main(["speed", letters[1], "--data", "letters"])
    found = lines(letters[1], "speed")
    assert [record["leaf_width"] for record in found] == [8, 4, 2, 1]
    capsys.readouterr()
    paper_tables.main(["table1", *letters, "--data", "letters", "--show"])
    shown = [line.split(" | ")[-1] for line in capsys.readouterr().out.splitlines()[3:]]
    assert shown == [f"{record['times_faster']:.1f} |" for record in found]


def test_tables_of_packages_are_made_readable(tmp_path, monkeypatch):
    names = [*tables.IMAGES, *(f"{name}.gz" for name in tables.IMAGES)]
    (tmp_path / "package").mkdir()
    for name in names:
        (tmp_path / "package" / name).write_text(name)
    monkeypatch.setattr(sys, "argv", ["tables.py", str(tmp_path), str(tmp_path / "out")])
    tables.main()
    for name in names:
        folder = "fashion-mnist" if name.endswith(".gz") else "mnist"
        assert (tmp_path / "out" / folder / name).read_text() == name
    frame = pandas.DataFrame({"kind": pandas.Categorical(["b", "a", "b"]), "x": [2.0, 0.5, 1.0]})
    tables.write_table(tmp_path / "letters.csv", frame, "kind")
    table = read_table(tmp_path / "letters.csv", "class")
    assert (table.classes, table.features) == (("a", "b"), ("x",))
    assert (list(table.y), list(table.x[:, 0])) == ([1, 0, 1], [2.0, 0.5, 1.0])


def point(model: str, cost: float, accuracy: float):
    return crossover.Point(model, crossover.MODELS[model].family, cost, accuracy)


DENSE = [point("dense-4", 1.0, 0.80), point("dense-16", 4.0, 0.90), point("dense-64", 9.0, 0.89)]


def test_the_front_is_what_nothing_cheaper_reaches():
    points = [*DENSE, point("fff-1x3", 4.0, 0.85), point("mlp-64", 20.0, 0.90)]
    assert [point.model for point in crossover.front(points)] == ["dense-4", "dense-16"]


@pytest.mark.parametrize(
    ("cost", "accuracy", "rival"),
    [
        (2.0, 0.85, "dense-4"),
        (3.4, 0.85, "dense-4"),
        (3.6, 0.85, "no stretch"),  # dense-16 is as fast, but for noise
        (2.0, 0.803, "no stretch"),  # of 1,000 rows the standard error is 0.0126
        (5.0, 0.93, "dense-16"),
        (0.5, 0.3, None),
        (4.0, 0.90, "no stretch"),
    ],
)
@pytest.mark.parametrize("model", ["fff-4x3", "leaf-4x8"])
def test_a_stretch_is_more_accurate_than_all_that_is_as_fast(model, cost, accuracy, rival):
    points = [*DENSE, point(model, cost, accuracy)]
    found = crossover.stretch(points, 1000)
    assert [(own.model, other and other.model) for own, other in found] == (
        [] if rival == "no stretch" else [(model, rival)]
    )
    assert crossover.verdict(points, 1000).startswith("no FFF" if not found else "has an FFF")


def test_dense_models_have_no_fff_stretch():
    assert crossover.stretch(DENSE, 1000) == []


@pytest.mark.parametrize(
    ("cheap", "dear", "drawn", "told"),
    [
        ("dense-4", "mlp-16", 1, "not drawn, 10 times beyond the layers: 1 of MLPClassifier"),
        ("mlp-16", "boosting-20x8", 2, ""),  # no layer that it could be beyond
    ],
)
def test_models_far_beyond_the_layers_are_counted_and_not_drawn(cheap, dear, drawn, told):
    axes = Figure().add_subplot()
    crossover.draw_set(axes, "set", [point(cheap, 1.0, 0.8), point(dear, 50.0, 0.9)], "us")
    assert sum(len(places.get_offsets()) for places in axes.collections) == drawn
    assert axes.get_title(loc="right") == told


def test_only_models_that_are_there_are_timed(tmp_path, capsys):
    for folder in ("models", "data"):
        (tmp_path / folder).mkdir()
    crossover.data_path(tmp_path, "letters").touch()
    everything = {}
    for data, name in (("letters", "dense-4"), ("letters", "fff-1x3"), ("mnist", "dense-4")):
        settings = {"lr": 0.01, "weight_decay": 0.2}
        run = {"data": data, "model": name, "seed": 0, "settings": settings}
        everything.setdefault(data, {})[name] = [run]
        if name == "dense-4":
            crossover.model_path(tmp_path, run).touch()
    found = crossover.with_files(everything, tmp_path)
    assert {data: list(models) for data, models in found.items()} == {"letters": ["dense-4"]}
    told = capsys.readouterr().err
    assert "letters fff-1x3 left out: no " in told
    assert f"mnist dense-4 left out: no {crossover.data_path(tmp_path, 'mnist')}" in told


def test_a_run_made_again_may_lose_its_place(tmp_path):
    def line(rate, validation):
        settings = {"lr": rate, "weight_decay": 0.2}
        run = {"data": "letters", "model": "dense-4", "seed": 0, "settings": settings}
        crossover.append_line(tmp_path / "models.jsonl", run | {"validation": validation})

    line(0.003, 0.8)
    line(0.008, 0.9)
    assert crossover.chosen(tmp_path)["letters"]["dense-4"][0]["settings"]["lr"] == 0.008
    line(0.008, 0.7)
    (best,) = crossover.chosen(tmp_path)["letters"]["dense-4"]
    assert (best["settings"]["lr"], best["tries"]) == (0.003, 2)


def test_visits_of_a_tree_are_the_nodes_that_a_mean_row_compares_at():
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.random.default_rng(0).standard_normal((300, 4))
    model = HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=5, early_stopping=False)
    model.fit(x, x[:, 0] + x[:, 1] > 0)
    for (grown,) in model._predictors:
        leaves = grown.nodes[grown.nodes["is_leaf"] == 1]
        expected = (leaves["depth"].astype(float) * leaves["count"]).sum() / 300
        assert crossover.visits(grown.nodes) == pytest.approx(expected)


@pytest.mark.slow
def test_the_crossover_trains_times_and_shows(tmp_path):
    script, out = "benchmarks.crossover", tmp_path / "out"
    names = ("fff-1x3", "leaf-2x8", "dense-4", "mlp-16", "boosting-20x8")
    train = ("train", str(tmp_path), str(out), "--quick", "--data", "digits", "letters")
    for _ in range(2):  # the second finds nothing left to do
        done = run_module(script, *train, "--models", *names)
        assert done.returncode == 0, done.stderr
        assert f"letters left out: no {tmp_path / 'letters.csv'}" in done.stderr
    lines = crossover.read_lines(out / "quick" / "models.jsonl")
    assert [line["model"] for line in lines] == [name for name in names for _ in range(4)]
    (best,) = crossover.chosen(out / "quick")["digits"]["fff-1x3"]
    path = crossover.model_path(out / "quick", best)
    before = path.read_bytes()
    path.unlink()  # a chosen model that is gone is made again
    done = run_module(script, *train, "--models", *names)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == before
    again = crossover.read_lines(out / "quick" / "models.jsonl")
    assert [{**line, "seconds": 0} for line in again[len(lines) :]] == [
        {**line, "seconds": 0} for line in lines if line["settings"] == best["settings"]
    ]
    timing = ("time", str(out), "--quick", "--repeats", "1", "--seconds", "0")
    done = run_module(script, *timing)
    assert done.returncode == 0, done.stderr
    (times,) = crossover.read_lines(out / "quick" / "times.jsonl")
    assert set(times["batch"]) == set(times["alone"]) == set(names)
    done = run_module(script, "show", str(out), "--quick")
    assert done.returncode == 0, done.stderr
    assert all(f"| {name} | 1 |" in done.stdout for name in names)
    assert all(f"- **digits, {kind}**: " in done.stdout for kind in ("batch", "alone"))
    pictures = sorted(path.name for path in (out / "quick").glob("*.svg"))
    assert pictures == ["pareto-alone.svg", "pareto-multiply-adds.svg", "pareto.svg"]


# --- Methods --------------------------------------------------------------------------------------


def all_nodes(**routing):
    """A layer that trains by all of its nodes, and the plain one it is made from."""
    plain = FastFeedForward(7, 4, 3, trees=2, dtype=np.float64, rng=0)
    layer = methods._as(methods.AllNodes, plain)
    layer.routing = methods.Routing(10, **routing)
    return layer, plain


def test_all_nodes_with_hard_routes_train_as_the_library_does():
    layer, plain = all_nodes()
    x, dy = (np.random.default_rng(0).standard_normal((9, width)) for width in (7, 4))
    expected, expected_cache = plain.forward(x)
    y, cache = layer.forward(x)
    np.testing.assert_allclose(y, expected, atol=1e-14)
    dx, grads = layer.backward(dy, cache)
    expected_dx, expected_grads = plain.backward(dy, expected_cache, straight_through=True)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-13)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, expected_grads[name], atol=1e-13)


def test_gradients_of_soft_routes_agree_with_finite_differences():
    layer, _ = all_nodes(soft=(0.5, 0.5))
    x, dy = (np.random.default_rng(0).standard_normal((9, width)) for width in (7, 4))
    _, cache = layer.forward(x)
    dx, grads = layer.backward(dy, cache)
    pairs = [(x, dx), *((layer.params[name], grad) for name, grad in grads.items())]
    check_gradients(lambda: float((layer.forward(x)[0] * dy).sum()), pairs)


def test_shared_neurons_of_a_master_leaf_stay_shared():
    settings = FitSettings(layer="leaf", depth=2, leaf_width=4, epochs=1)
    context = methods.Context(np.zeros((0, 5), np.float32), 10, 0.1)
    layer = methods.master_leaf(settings, 5, 3, context)
    x, dy = (np.random.default_rng(0).standard_normal((9, width)) for width in (5, 3))
    _, cache = layer.forward(x)
    _, grads = layer.backward(dy, cache)
    for name, part in layer._parts():
        for array in (layer.params[name][part], grads[name][part]):
            assert array.size
            np.testing.assert_array_equal(array, np.broadcast_to(array[:1], array.shape))
    assert (layer.params["leaf_bias_in"][0] != layer.params["leaf_bias_in"][1]).any()


def test_balanced_routes_send_half_of_the_rows_each_way():
    rows = np.random.default_rng(0).standard_normal((800, 6)).astype(np.float32)
    settings = FitSettings(depth=3, trees=2)
    layer = methods.balanced_routes(settings, 6, 3, methods.Context(rows, 10, 0.1))
    leaves = layer.route(rows)[:, :, -1]
    for tree in range(2):
        np.testing.assert_allclose(np.bincount(leaves[:, tree])[7:], 100, atol=3)


def test_pruned_nodes_are_those_without_a_row():
    layer = FastFeedForward(5, 3, 4, rng=0)
    rows = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    before = layer(rows)
    share = methods.prune(layer, rows)
    assert share == 1 - len(np.unique(layer.route(rows))) / 31
    np.testing.assert_array_equal(layer(rows), before)
    assert (layer.params["weights_out"] == 0).all(axis=2).mean() == share
