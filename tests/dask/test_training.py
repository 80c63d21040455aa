"""Training on workers: the bits of one process, whoever computes, whoever is lost."""

from __future__ import annotations

import dataclasses
import json
import threading

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import fffcpu
import fffcpu.dask
from fffcpu.dask import crew
from fffcpu.dask.losses import LOSSES
from fffcpu.data import Table
from fffcpu.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    ClusterError,
    DataError,
    ShapeError,
)
from fffcpu.recipes.fitting import FitSettings, fit
from fffcpu.recipes.pretraining import PretrainSettings, pretrain
from fffcpu.recipes.table_parts import cut_table
from fffcpu.text import Tokenizer, build_corpus
from fffcpu.training.run_folder import RunFolder
from tests.dask.support import (
    DIGITS,
    IMAGES,
    LABELS,
    LAYERS,
    QUICK,
    Killer,
    bits,
    local_client,
    saved,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of the settings, by name: bytes, figures and history."""
    made = {}

    def find(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("alone")
            fitted = fit(DIGITS, LAYERS[name], folder=folder, progress=False)
            made[name] = saved(fitted, folder), fitted.outcome.figures, lines_of(folder)
        return made[name]

    return find


def lines_of(folder):
    """The history of a run, without times."""
    return [{**line, "seconds": 0} for line in RunFolder(folder).read_history()]


# --- The same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_two_workers_give_the_bits_of_one_process(name, client, alone, tmp_path):
    fitted = fffcpu.dask.fit(client, IMAGES, LABELS, LAYERS[name], folder=tmp_path, progress=False)
    expected, figures, history = alone(name)
    assert saved(fitted, tmp_path) == expected
    assert fitted.outcome.figures == figures
    assert lines_of(tmp_path) == history


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["fast", "leaf"])
@pytest.mark.parametrize("workers", [1, 3, 4])
def test_any_number_of_workers_gives_the_bits_of_one_process(name, workers, alone, tmp_path):
    with fffcpu.dask.connect(f"local:{workers}") as client:
        fitted = fffcpu.dask.fit(client, DIGITS, None, LAYERS[name], progress=False)
    assert saved(fitted, tmp_path) == alone(name)[0]


@pytest.mark.parametrize("name", ["fast", pytest.param("rows", marks=pytest.mark.thorough)])
def test_a_worker_that_is_killed_changes_no_bit(name, client, alone, tmp_path):
    killer = Killer(client)
    fitted = fffcpu.dask.fit(client, DIGITS, None, LAYERS[name], progress=False, callbacks=[killer])
    assert len(killer.killed) == 1
    assert saved(fitted, tmp_path) == alone(name)[0]


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["leaf", "local"])
def test_all_workers_may_be_lost_one_after_the_other(name, alone, tmp_path):
    with fffcpu.dask.connect("local:2") as client:
        killer = Killer(client, kills=3)
        settings = dataclasses.replace(LAYERS[name], epochs=5)
        x = da.from_array(IMAGES, chunks=(170, 64))
        fitted = fffcpu.dask.fit(client, x, LABELS, settings, progress=False, callbacks=[killer])
    assert len(killer.killed) == 3
    expected = fit(DIGITS, settings, progress=False)
    assert saved(fitted, tmp_path) == saved(expected, tmp_path)


@pytest.mark.thorough
def test_threads_of_a_worker_share_its_shards(alone, tmp_path):
    with local_client(n_workers=1, threads_per_worker=3) as client:
        fitted = fffcpu.dask.fit(client, DIGITS, None, LAYERS["leaf"], progress=False)
    assert saved(fitted, tmp_path) == alone("leaf")[0]


def test_a_run_goes_on_in_one_process_and_back_on_the_cluster(client, alone, tmp_path):
    settings = dataclasses.replace(LAYERS["fast"], checkpoint_seconds=0, keep=20)

    def cut(steps):
        """Leave the checkpoint after some steps as the newest."""
        for path in RunFolder(tmp_path).checkpoints():
            if int(path.stem.rpartition("-")[2]) > steps:
                path.unlink()

    def on_cluster(**more):
        how = {"folder": tmp_path, "progress": False, **more}
        return fffcpu.dask.fit(client, DIGITS, None, settings, **how)

    on_cluster()
    cut(11)
    here = fit(DIGITS, settings, folder=tmp_path, resume=True, progress=False)
    assert saved(here, tmp_path) == alone("fast")[0]
    cut(12)
    assert saved(on_cluster(resume=True), tmp_path) == alone("fast")[0]
    with pytest.raises(CheckpointError, match="unfinished"):
        on_cluster()


def test_two_trainings_at_once_do_not_block_each_other(client, alone, tmp_path):
    found = {}

    def train(name):
        found[name] = fffcpu.dask.fit(client, DIGITS, None, LAYERS[name], progress=False)

    threads = [threading.Thread(target=train, args=(name,)) for name in ("fast", "leaf")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for name in ("fast", "leaf"):
        assert saved(found[name], tmp_path) == alone(name)[0]


@pytest.mark.thorough
def test_workers_that_join_take_their_share(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "LOOK_SECONDS", 0.0)
    with local_client(n_workers=1, threads_per_worker=1) as client:
        seen = []

        def join(evaluation):
            client.cluster.scale(2)
            client.wait_for_workers(2)
            seen.append(client.run(held))

        fitted = fffcpu.dask.fit(
            client, DIGITS, None, LAYERS["fast"], progress=False, callbacks=[join]
        )
    assert saved(fitted, tmp_path) == alone("fast")[0]
    assert sorted(seen[0].values()) == [0, 4]
    assert sorted(seen[-1].values()) == [2, 2]


def held():
    """How many shards this process holds."""
    from fffcpu.dask import worker

    return sum(len(holder._parts) for holder in worker._HOLDERS.values())


def test_workers_let_go_of_a_training_that_has_ended(client):
    fffcpu.dask.fit(client, DIGITS, None, LAYERS["fast"], progress=False)
    for _ in range(100):
        if not any(client.run(held).values()):
            return
        threading.Event().wait(0.1)
    pytest.fail("shards are still held")


# --- Tables --------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 3)) * [1, 100, 0.01] + [0, 500, 0]
Y = X[:, 0] * 3 + X[:, 1] / 50
FRAME = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": Y})


def test_tables_of_dask_are_those_of_numpy(client, tmp_path):
    settings = FitSettings(**QUICK | {"epochs": 1, "batch_size": 30}, clip=True)
    expected = fit(Table(X, Y[:, None]), settings, progress=False)
    x = da.from_array(X, chunks=((30, 0, 120, 50), 2))
    for rows in (x, client.persist(x), x[da.from_array(np.ones(200, bool), chunks=(200,))]):
        fitted = fffcpu.dask.fit(client, rows, da.from_array(Y, chunks=90), settings)
        assert saved(fitted, tmp_path) == saved(expected, tmp_path)
    named = Table(X, Y[:, None], features=("a", "b", "c"), target=("y",))
    expected = fit(named, settings, progress=False)
    frame = dd.from_pandas(FRAME, npartitions=3)
    for table in (frame, FRAME):
        fitted = fffcpu.dask.fit(client, table[["a", "b", "c"]], table["y"], settings)
        assert saved(fitted, tmp_path) == saved(expected, tmp_path)


def test_labels_may_be_texts(client):
    labels = np.where(X[:, 0] > 0, "more", "less")
    settings = FitSettings(**QUICK | {"epochs": 1, "batch_size": 30})
    series = dd.from_pandas(pd.Series(labels, name="kind"), npartitions=2)
    for y in (labels, series):
        fitted = fffcpu.dask.fit(client, X, y, settings, progress=False)
        assert fitted.predictor.schema.classes == ("less", "more")
    assert fitted.predictor.schema.target == ("kind",)
    whole = np.arange(200) % 4
    fitted = fffcpu.dask.fit(client, X, whole, settings, task="regression", progress=False)
    assert fitted.predictor.schema.task == "regression"


# --- Pretraining ---------------------------------------------------------------------------------

TINY = {
    "width": 16, "layers": 1, "heads": 2, "feedforward_size": 2, "depth": 2, "length": 16,
    "batch_size": 16, "small_batch_size": 8, "steps": 8, "shards": 4, "evaluate_every": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    words = ("red", "blue", "green"), ("cat", "dog", "bird"), ("runs", "sleeps", "sings")
    kinds = np.random.default_rng(0).integers(0, 3, 400)
    lines = ["the " + " ".join(word[kind] for word in words) + "." for kind in kinds]
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    tokenizer = Tokenizer.train(lines, 60)
    return build_corpus([path], tokenizer, path.parent / "corpus", validation=0.2)


@pytest.mark.parametrize("feedforward", ["fff", pytest.param("ff", marks=pytest.mark.thorough)])
def test_pretraining_gives_the_bits_of_one_process(feedforward, client, corpus, tmp_path):
    settings = PretrainSettings(**TINY, feedforward=feedforward)
    expected = pretrain(corpus, settings, folder=tmp_path / "here", progress=False)
    killer = Killer(client)
    found = fffcpu.dask.pretrain(
        client, corpus, settings, folder=tmp_path / "there", progress=False, callbacks=[killer]
    )
    assert killer.killed
    assert bits(found.model) == bits(expected.model)
    assert found.outcome.figures == expected.outcome.figures
    assert found.outcome.rows == expected.outcome.rows
    assert lines_of(tmp_path / "there") == lines_of(tmp_path / "here")


def test_pretraining_in_shards_sees_as_many_tokens(corpus):
    one, four = (
        pretrain(corpus, PretrainSettings(**TINY | {"shards": shards}), progress=False)
        for shards in (1, 4)
    )
    assert one.outcome.rows == four.outcome.rows
    assert bits(one.model) != bits(four.model)
    assert four.outcome.figures["validation_loss"] == pytest.approx(
        one.outcome.figures["validation_loss"], rel=0.05
    )
    with pytest.raises(ArgumentError, match="'shards' must be an integer from 1 to 8, got 9"):
        PretrainSettings(**TINY | {"shards": 9})


# --- What is wrong -------------------------------------------------------------------------------


def test_another_version_on_a_worker_is_told(client, monkeypatch):
    monkeypatch.setattr(fffcpu, "__version__", "9.9")
    with pytest.raises(ClusterError, match=r"must have fffcpu 9\.9, got 0\."):
        fffcpu.dask.fit(client, DIGITS, None, LAYERS["fast"], progress=False)


HIDE = """
import sys

class Hidden:
    def find_spec(self, name, *_):
        if name == "fffcpu":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.thorough
def test_a_worker_without_fffcpu_is_told():
    with (
        local_client(n_workers=1, threads_per_worker=1, preload=[HIDE]) as client,
        pytest.raises(ClusterError, match=r"must have fffcpu \S+, got none"),
    ):
        fffcpu.dask.fit(client, DIGITS, None, LAYERS["fast"], progress=False)


def test_a_cluster_without_workers_is_told(monkeypatch):
    monkeypatch.setattr(crew, "WAIT_SECONDS", 0.2)
    with (
        local_client(n_workers=0) as client,
        pytest.raises(ClusterError, match="has had no worker for 0 s"),
    ):
        fffcpu.dask.fit(client, DIGITS, None, LAYERS["fast"], progress=False)


def test_shards_that_kill_their_workers_end_the_training(client, monkeypatch):
    monkeypatch.setattr(crew, "MOST_LOSSES", 1)
    parts = crew.Crew(client, cut_table(DIGITS, np.arange(500), np.empty(0, np.int64), 2))
    with (
        client.as_current(),
        pytest.raises(ClusterError, match="2 workers were lost during one step"),
    ):
        parts.map(die)


@pytest.mark.parametrize("error", [OSError("gone"), *(kind("gone") for kind in LOSSES[:2])])
def test_answers_that_are_lost_with_a_worker_are_known(error, client):
    class Call:
        def result(self, timeout):
            raise error

    asked = crew.Crew(client, [])
    with pytest.raises(crew._Lost):
        asked._answer(crew._Member("tcp://10.0.0.1:1"), Call())


def die(part):
    """Kill this worker."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def test_errors_of_rows_name_their_place(client):
    x = X.copy()
    x[150, 2] = np.inf
    settings = FitSettings(**QUICK | {"batch_size": 30})
    for rows in (x, da.from_array(x, chunks=(64, 3))):
        with pytest.raises(DataError, match=r"row 150, column 2 .*must be a finite number"):
            fffcpu.dask.fit(client, rows, Y, settings, progress=False)


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (X, Y[:-1], DataError, "argument 'y': must have 200 labels"),
        (X[:, 0], Y, ShapeError, r"'x' must be rows of shape \(R, C\)"),
        (X.astype(str), Y, ArgumentTypeError, "'x' must hold real numbers"),
        (DIGITS, Y, ArgumentError, "'y' and 'task' must be None"),
        (
            dd.from_pandas(FRAME.assign(a="text"), npartitions=1),
            Y,
            ArgumentTypeError,
            "got column 'a'",
        ),
    ],
)
def test_wrong_tables_are_told(client, x, y, error, words):
    with pytest.raises(error, match=words):
        fffcpu.dask.fit(client, x, y, FitSettings(), progress=False)


def test_a_client_must_be_one():
    with pytest.raises(ArgumentTypeError, match=r"'client' must be a distributed\.Client"):
        fffcpu.dask.fit("tcp://10.0.0.1:8786", X, Y, FitSettings())


def test_shares_are_in_proportion_to_threads():
    for threads, shards in (({"a": 1, "b": 1}, 5), ({"a": 8, "b": 1}, 3), ({"a": 2, "b": 6}, 16)):
        found = crew.shares(threads, shards)
        assert sum(found.values()) == shards
        for name, count in found.items():
            assert abs(count - shards * threads[name] / sum(threads.values())) < 1
