"""The commands: encoders compared once, times, and the table of both."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.accuracy.distillation import encoders, quality, texts, timing
from benchmarks.accuracy.distillation.__main__ import main
from benchmarks.records import read_records
from fffcpu.benchmarking import timing as alternation
from fffcpu.errors import WrongOutputError
from fffcpu.models import BertConfig, BertEncoder
from fffcpu.text import Tokenizer

WORDS = ("a", "rose", "is", "red", "and", "the", "cat", "sat", "on", "mat", "dogs", "ran", "green")


def sentences(count, seed, words=3):
    """Random texts."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 2 + words))) for _ in range(count)]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Folders of a teacher, of two students, and of texts, as the working directory."""
    monkeypatch.setattr(alternation, "REST", 0.0)
    tokenizer = Tokenizer.train(sentences(200, 0), vocabulary=90)
    config = BertConfig(tokenizer.vocabulary, 8, 1, 2, feedforward_size=6, positions=16)
    fast = dataclasses.replace(config, feedforward="fff", feedforward_size=2, depth=1)
    files = {"tokenizer.json": tokenizer.to_json()}
    for name, own, seed in (("teacher", config, 0), ("same", config, 0), ("fast", fast, 1)):
        BertEncoder(own, rng=seed).save_pretrained(tmp_path / name, files=files)
    folder = tmp_path / "texts"
    folder.mkdir()
    for seed, part in enumerate(("training", "test")):
        rows = [
            {"text": text, "label": "rose" if "rose" in text else "none"}
            for text in sentences(120, seed)
        ]
        write_lines(folder / f"glosses-{part}.jsonl", rows)
    documents = [
        {"text": " . ".join(sentences(6, k)) + " .", "label": "ab"[k % 2]} for k in range(30)
    ]
    write_lines(folder / "brown.jsonl", documents)
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUALITY = ("quality", "teacher", "texts", "out", "--quick", "--threads", "1")
TIME = ("time", "teacher", "out", "--quick", "--repeats", "2", "--seconds", "0", "--threads", "1")
STUDENTS = ("--students", "same", "fast")


def test_encoders_are_compared_once(place, capsys):
    main([*QUALITY, "--students", "same"])
    path = quality.quality_path(place / "out" / "quick")
    first = read_records(path)
    runs = [(record["model"], record["runtime"]) for record in first]
    assert runs == [
        ("teacher", "fffcpu float32"),
        ("teacher", "fffcpu int8"),
        ("teacher", "onnxruntime int8"),
        ("same", "fffcpu float32"),
        ("same", "fffcpu int8"),
    ]
    assert "no snippets-training.jsonl" in capsys.readouterr().err
    main([*QUALITY, *STUDENTS])
    found = read_records(path)
    assert found[:5] == first
    assert [record["model"] for record in found[5:]] == ["fast", "fast"]
    fast = found[5]
    for record in (first[0], first[3]):  # the teacher itself, and a copy of it
        for name in ("similarity", "neighbours", "cosine"):
            assert record[name] == pytest.approx({"glosses": 1, "sentences": 1}, abs=1e-5)
        assert record["probes"].keys() == {"glosses", "genres"}
    assert first[0]["probes"] == first[3]["probes"]
    assert all(-1 <= value < 0.999 for value in fast["similarity"].values())


def test_all_encoders_are_timed_together_and_shown(place, capsys):
    main([*QUALITY, *STUDENTS])
    main([*TIME, *STUDENTS])
    (record,) = read_records(timing.times_path(place / "out" / "quick"))
    runs = [(one["model"], one["runtime"]) for one in record["encoders"]]
    assert runs == [
        ("teacher", "fffcpu float32"),
        ("teacher", "fffcpu int8"),
        ("teacher", "onnxruntime float32"),
        ("teacher", "onnxruntime int8"),
        ("same", "fffcpu float32"),
        ("same", "fffcpu int8"),
        ("fast", "fffcpu float32"),
        ("fast", "fffcpu int8"),
    ]
    assert all(one["microseconds"] > 0 for one in record["encoders"])
    capsys.readouterr()
    main(["show", "out", "--quick"])
    lines = capsys.readouterr().out.splitlines()
    head, _, *rows = [line for line in lines if line.startswith("|")]
    assert "similarity, glosses" in head
    assert "µs per token, 2x8" in head
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [(row[0], row[1]) for row in cells] == runs
    assert not any("-" in row for row in cells)  # float32 in onnxruntime has the teacher's quality
    assert cells[0][2:-1] == cells[2][2:-1]
    assert any("threads 1" in line for line in lines)


def test_nothing_to_show_is_an_error(place):
    with pytest.raises(SystemExit, match="no records in"):
        main(["show", "out"])


def test_an_encoder_that_computes_something_else_is_not_timed(place):
    model = BertEncoder.from_pretrained("teacher")
    wrong = encoders.Encoder("teacher", "fffcpu float32", model, lambda *given: 2 * model(*given))
    with pytest.raises(WrongOutputError, match="must compute the hidden states"):
        timing.check(wrong)
    rounded = wrong._replace(runtime="fffcpu int8")
    timing.check(rounded)  # twice the vectors have the same directions
    with pytest.raises(WrongOutputError, match="mean cosine"):
        timing.check(rounded._replace(run=lambda *given: -model(*given)))


def test_vectors_are_those_of_embed(place):
    from fffcpu.pipelines import TextEmbedder

    embedder = TextEmbedder.from_pretrained("teacher")
    encoder, small = encoders.ours("teacher", embedder.model)
    assert (encoder.runtime, small.runtime) == ("fffcpu float32", "fffcpu int8")
    some = sentences(20, 5)
    found = encoders.vectors_of(encoder, embedder.tokenizer.encode(some))
    np.testing.assert_allclose(found, embedder.embed(some, normalize=True), atol=1e-5)


def test_neighbours_do_not_count_the_text_itself():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert quality.shared_neighbours(vectors, vectors) == 1
    order = np.argsort(-(vectors @ vectors.T), axis=1)
    assert (order[:, 0] == np.arange(40)).all()
    for own, near in zip(order, quality.nearest(vectors, 3), strict=True):
        assert set(near) == set(own[1:4])
    others = rng.standard_normal((40, 6))
    assert quality.shared_neighbours(vectors, others) < 0.6


def test_no_document_is_in_both_parts(place):
    (path,) = place.glob("texts/brown.jsonl")
    found, training, held_out = texts.split_of(path)
    assert len(np.unique(found.documents[held_out])) == 3
    assert not set(found.documents[training]) & set(found.documents[held_out])
    task = texts.genres(path, texts.Sizes())
    assert len(task.training) == len(task.labels) == len(training)
    names = ["ab"[document % 2] for document in found.documents[held_out]]
    assert task.test_labels == names


def test_documents_without_genres_are_left_out(place, capsys):
    write_lines(place / "texts/brown.jsonl", [{"text": "a cat . sat ."}] * 20)
    assert [task.name for task in texts.tasks(place / "texts", texts.QUICK)] == ["glosses"]
    assert "genres left out" in capsys.readouterr().err
