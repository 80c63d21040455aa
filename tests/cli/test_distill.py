"""``fffcpu distill``: from a folder and texts to a folder that other commands read."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from fffcpu.benchmarking import timing
from fffcpu.cli import main
from fffcpu.models import (
    BertConfig,
    BertEncoder,
    BertForMaskedLM,
    BertForSequenceClassification,
    FastBertConfig,
    FastBertForMaskedLM,
)
from fffcpu.models.opening import open_model
from fffcpu.recipes.distillation import EncoderObjective, LayersObjective
from fffcpu.text import Tokenizer

TEXTS = ["a rose is a rose", "the cat sat on the mat", "", "the dog ran under a tree"] * 12
OPTIONS = ("--trees", "2", "--depth", "1", "--epochs", "1", "--validation", "0.2")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a teacher and texts, as the working directory."""
    tokenizer = Tokenizer.train(TEXTS, vocabulary=90)
    config = BertConfig(tokenizer.vocabulary, 8, 1, 2, feedforward_size=6, positions=12)
    files = {"tokenizer.json": tokenizer.to_json()}
    BertEncoder(config, rng=0).save_pretrained(tmp_path / "teacher", files=files)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_student_embeds(place, capsys):
    main(["distill", "teacher", "texts.txt", "--out", "student", *OPTIONS, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["texts"] + report["held_out"] == 36
    assert report["stages"]["layers"]["steps"] > 0
    assert -1 <= report["similarity"] <= 1
    kept = json.loads((place / "student/distillation.json").read_text())
    assert kept == {name: report[name] for name in kept}
    assert "times" not in kept
    assert not list((place / "student.training").rglob("checkpoint*"))
    main(["embed", "student", "texts.txt", "--out", "vectors.npy"])
    assert np.load(place / "vectors.npy").shape == (len(TEXTS), 8)
    main(["info", "student"])
    printed = capsys.readouterr().out
    assert "fff" in printed
    assert f"distilled from    teacher, with {report['texts']} texts" in printed
    assert f"similarity {report['similarity']:.4f}" in printed


@pytest.fixture
def save(place):
    """A function that saves a model in a folder with the tokenizer."""
    tokenizer = Tokenizer.load(place / "teacher")

    def write(kind, name, **changes):
        base = BertConfig(tokenizer.vocabulary, 8, 1, 2, feedforward_size=6, positions=12)
        config = dataclasses.replace(base, **changes)
        files = {"tokenizer.json": tokenizer.to_json()}
        kind(config, rng=0).save_pretrained(place / name, files=files)

    return write


def test_a_student_of_a_classifier_classifies(place, save, capsys):
    save(BertForSequenceClassification, "judge", classes=2, labels=("a", "b"))
    main(["distill", "judge", "texts.txt", "--out", "student", *OPTIONS])
    printed = capsys.readouterr().out
    assert "BertForSequenceClassification" in printed
    assert "agreement" in printed
    main(["info", "student"])
    assert "agreement " in capsys.readouterr().out
    assert main(["classify", "student", "texts.txt", "--out", "found.jsonl"]) == 0
    lines = (place / "found.jsonl").read_text().splitlines()
    assert {json.loads(line)["label"] for line in lines} <= {"a", "b"}
    assert len(lines) == len(TEXTS)


@pytest.mark.parametrize(("classes", "title"), [(2, "agreement"), (1, "output R2")])
def test_the_picture_of_a_classifier_has_its_figure(classes, title, place, save, monkeypatch):
    monkeypatch.setattr(timing, "REST", 0.0)
    save(BertForSequenceClassification, "judge", classes=classes)
    command = ["distill", "judge", "texts.txt", "--out", "student", *OPTIONS]
    assert main([*command, "--plot", "a.svg", "--shapes", "1x4"]) == 0
    picture = (place / "a.svg").read_text()
    assert title in picture
    assert "similarity" not in picture


def test_the_head_of_a_masked_language_model_is_left_out(place, save, capsys):
    save(BertForMaskedLM, "mlm")
    assert main(["distill", "mlm", "texts.txt", "--out", "student", *OPTIONS]) == 0
    assert "mlm: the head of the masked language model is left out" in capsys.readouterr().err
    assert type(open_model(place / "student")) is BertEncoder


def test_what_cannot_be_distilled_is_an_error_before_texts_are_read(place, capsys):
    tokenizer = Tokenizer.load(place / "teacher")
    files = {"tokenizer.json": tokenizer.to_json()}
    config = FastBertConfig(tokenizer.vocabulary, 8, 1, 2, feedforward_size=1, depth=1)
    for model, name, message in (
        (FastBertForMaskedLM(config, rng=0), "trees", "must hold a BERT to distil, got a FastBERT"),
        (BertEncoder.from_pretrained("teacher").quantize("int8"), "int8", "with float weights"),
    ):
        model.save_pretrained(place / name, files=files)
        assert main(["distill", name, "missing.txt", "--out", "student"]) != 0
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("objective", [LayersObjective, EncoderObjective])
def test_a_killed_run_continues(objective, place, capsys, monkeypatch):
    command = ["distill", "teacher", "texts.txt", *OPTIONS]
    main([*command, "--out", "whole"])

    def fail(self):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(objective, "evaluate", fail)
        killed = [*command, "--out", "student", "--checkpoint-seconds", "0"]
        with pytest.raises(RuntimeError, match="killed"):
            main(killed)
    assert main(killed) != 0
    assert "Pass --resume to continue it" in capsys.readouterr().err
    assert main([*killed, "--resume"]) == 0
    assert "continuing from checkpoint-" in capsys.readouterr().err
    models = [(place / name / "model.safetensors").read_bytes() for name in ("whole", "student")]
    assert models[0] == models[1]
    left = [file.name for file in (place / "student.training").rglob("*") if file.is_file()]
    assert left == ["history.jsonl"] * 2


def test_times_are_drawn(place, capsys, monkeypatch):
    monkeypatch.setattr(timing, "REST", 0.0)
    shapes = ("--plot", "a.svg", "--shapes", "1x4", "2x12")
    main(["distill", "teacher", "texts.txt", "--out", "student", *OPTIONS, *shapes])
    printed = capsys.readouterr().out
    kept = json.loads((place / "student/distillation.json").read_text())
    assert list(kept["times"]) == ["1x4", "2x12"]
    for shape, times in kept["times"].items():
        assert shape in printed
        assert all(time > 0 for time in (times["teacher"], times["student"]))
    assert "2x12 tokens" in (place / "a.svg").read_text()


def test_without_texts_held_out_there_is_no_picture(place, capsys):
    command = ["distill", "teacher", "texts.txt", "--out", "student", *OPTIONS]
    main([*command, "--validation", "0", "--plot", "a.svg", "--shapes", "1x4"])
    told = capsys.readouterr()
    assert "no picture" in told.err
    assert not (place / "a.svg").exists()
    main(["info", "student"])
    assert "held-out" not in capsys.readouterr().out


def test_a_table_for_people(place, capsys):
    main(["distill", "teacher", "texts.txt", "--out", "narrow", *OPTIONS, "--width", "3"])
    printed = capsys.readouterr().out
    assert "feedforwards of 3 neurons" in printed
    assert "similarity" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--validation", "1"), "'validation' must be below 1"),
        (("--hours", "0"), "'--hours' must be above 0"),
        (("--plot", "a.xyz"), "'plot' must end in one of"),
        (("--plot", "a.svg", "--shapes", "1x13"), "at most the teacher's 12 tokens, got 13"),
        (("--shapes", "8"), "'shape' must be texts x tokens, such as '8x128', got '8'"),
        (("--epochs", "0"), "'epochs' must be above 0"),
        (("--hours", "1"), "'epochs' or 'seconds' must be given alone"),
        (("--out", "teacher"), "teacher"),
    ],
)
def test_what_is_wrong_is_told(options, message, place, capsys):
    command = ["distill", "teacher", "texts.txt", "--out", "student", *OPTIONS, *options]
    assert main(command) != 0
    assert message in capsys.readouterr().err
