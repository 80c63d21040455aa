"""The scripts in benchmarks/ start, and every peer that is installed computes what it should."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference

import fffcpu
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("bench_*.py"))


def load(name: str):
    """Import a module of benchmarks/, which is not on the path."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


crossover = load("crossover")
peers = load("peers")


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


def run_script(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(fffcpu.__file__).parent.parent)}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("peer", of_kind("dense"))
@pytest.mark.parametrize("count", [1, 6])
def test_dense_peers_compute_the_dense_layer(peer, count):
    params = DenseFeedForward(9, 5, 21, rng=0).params
    x = rows(count, 9)
    as_trees = {name: array[:, np.newaxis] for name, array in params.items()}
    expected = reference.path(x, **as_trees, activation=peer.activation).y
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
    result = reference.path(x, **layer.params)
    y = prepared(peer, layer.params, "gelu").run(x)
    safe = result.margin > 1e-5
    assert safe.sum() > 30
    assert np.abs(y - result.y)[safe].max() <= peer.tolerance * np.abs(result.y).max()


@pytest.mark.parametrize("peer", of_kind("step"))
def test_step_peers_compute_the_gradients(peer):
    layer, x, dy = tree(), rows(30, 9), rows(30, 5)
    assert reference.path(x, **layer.params).margin.min() > 1e-5  # so routes agree
    step = prepared(peer, layer.params, "gelu")
    for _ in range(2):  # gradients of one call do not add to those of the last
        dx, grads = step.run(x, dy)
    expected_dx, expected = reference.path_gradients(x, **layer.params, dy=dy)
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


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_explain_themselves(script):
    done = run_script(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.slow
def test_the_encoder_benchmark_checks_and_times_all_parts():
    arguments = ("--quick", "--rounds", "1", "--seconds", "0", "--count", "5", "--json")
    done = run_script(FOLDER / "bench_encoder.py", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["races"]) == 4
    assert found["alone"]["masked positions"] >= 5
    assert found["alone"]["movement of a position's logits, largest"] < 1e-5
    if not peers.absent(peers.TorchMasked):
        assert any("4 of 4 sequences agree" in note for note in found["notes"])


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
        (3.7, 0.85, "dense-4"),
        (3.9, 0.85, "no stretch"),  # dense-16 is as fast, but for noise
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


def test_multiply_adds_are_those_of_the_neurons_and_gates_of_a_row():
    count = crossover.multiply_adds
    assert count(tree(trees=2).config) == 2 * 4 * (9 + 5)
    assert count(LeafFeedForward(9, 5, 3, 6, rng=0).config) == 3 * 9 + 6 * (9 + 5)
    assert count(DenseFeedForward(9, 5, 21, rng=0).config) == 21 * (9 + 5)


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
    script, out = FOLDER / "crossover.py", tmp_path / "out"
    names = ("fff-1x3", "leaf-2x8", "dense-4", "mlp-16", "boosting-20x8")
    train = ("train", str(tmp_path), str(out), "--quick", "--data", "digits", "letters")
    for _ in range(2):  # the second finds nothing left to do
        done = run_script(script, *train, "--models", *names)
        assert done.returncode == 0, done.stderr
        assert f"letters left out: no {tmp_path / 'letters.csv'}" in done.stderr
    lines = crossover.read_lines(out / "quick" / "models.jsonl")
    assert [line["model"] for line in lines] == [name for name in names for _ in range(4)]
    timing = ("time", str(out), "--quick", "--repeats", "1", "--seconds", "0")
    done = run_script(script, *timing)
    assert done.returncode == 0, done.stderr
    (times,) = crossover.read_lines(out / "quick" / "times.jsonl")
    assert set(times["batch"]) == set(times["alone"]) == set(names)
    done = run_script(script, "show", str(out), "--quick")
    assert done.returncode == 0, done.stderr
    assert all(f"| {name} | 1 |" in done.stdout for name in names)
    assert all(f"- **digits, {kind}**: " in done.stdout for kind in ("batch", "alone"))
    pictures = sorted(path.name for path in (out / "quick").glob("*.svg"))
    assert pictures == ["pareto-alone.svg", "pareto-multiply-adds.svg", "pareto.svg"]
