"""Fine-tuning: a classifier from labelled texts, to the bit again after an interruption."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.cli import main
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError, DataError
from fffcpu.models import (
    BertConfig,
    BertEncoder,
    BertForSequenceClassification,
    FastBertConfig,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from fffcpu.recipes.finetuning import FinetuneSettings, evaluate_texts, finetune
from fffcpu.text import LabelledTexts, Tokenizer, read_labelled
from fffcpu.training.run_folder import RunFolder

GOOD, BAD = ("fine", "great", "lovely"), ("poor", "awful", "dull")


def texts(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        label = int(rng.integers(2))
        word = (BAD, GOOD)[label][rng.integers(3)]
        filler = " ".join(["very"] * rng.integers(0, 4))
        yield f"a {filler} {word} film", ("bad", "good")[label]


DATA = LabelledTexts(
    [text for text, _ in texts(120)],
    np.array([int(label == "good") for _, label in texts(120)]),
    ("bad", "good"),
)
TOKENIZER = Tokenizer.train(DATA.texts, 64)
CONFIG = FastBertConfig(TOKENIZER.vocabulary, 64, 1, 4, feedforward_size=2, depth=2, positions=16)


def pretrained():
    return FastBertForMaskedLM(CONFIG, rng=0)


def bits(model):
    return {name: array.tobytes() for name, array in model.params.items()}


@pytest.mark.slow
@pytest.mark.parametrize("pooler", ["zero_index", "avg"])
def test_learns(pooler):
    start = pretrained()
    before = bits(start)
    settings = FinetuneSettings(lr=3e-3, epochs=12, pooler=pooler)
    done = finetune(start, TOKENIZER, DATA, settings, progress=False)
    assert evaluate_texts(done.model, TOKENIZER, DATA)["accuracy"] > 0.95
    assert done.model.config.labels == ("bad", "good")
    assert bits(start) == before


def test_routes_learn_if_they_are_to(monkeypatch):
    asked, backward = [], FastFeedForward.backward

    def watch(layer, dy, cache, row_sparse, straight_through):
        asked.append(straight_through)
        return backward(layer, dy, cache, row_sparse, straight_through)

    monkeypatch.setattr(FastFeedForward, "backward", watch)
    for choice in (True, False):
        asked.clear()
        settings = FinetuneSettings(epochs=1, batch_size=108, straight_through=choice)
        finetune(pretrained(), TOKENIZER, DATA, settings, progress=False)
        assert set(asked) == {choice}


@pytest.mark.slow
def test_a_regression_learns():
    data = LabelledTexts(DATA.texts, DATA.labels.astype(np.float64), None)
    settings = FinetuneSettings(lr=3e-3, epochs=12)
    done = finetune(pretrained(), TOKENIZER, data, settings, progress=False)
    assert done.model.config.classes == 1
    assert evaluate_texts(done.model, TOKENIZER, data)["loss"] < 0.1


def test_a_single_step_learns():
    start = pretrained()
    settings = FinetuneSettings(epochs=1, batch_size=len(DATA.texts), validation=0.0)
    seen = []
    done = finetune(start, TOKENIZER, DATA, settings, progress=False, callbacks=[seen.append])
    assert done.outcome.steps == 1
    assert [evaluation.step for evaluation in seen] == [1]
    words = "encoder.embedding.words"
    assert bits(done.model)[words] != bits(start)[words]


def test_a_broken_off_run_goes_on_to_the_same_bits(tmp_path):
    settings = FinetuneSettings(epochs=1, checkpoint_seconds=0)
    whole = finetune(pretrained(), TOKENIZER, DATA, settings, folder=tmp_path, progress=False)
    RunFolder(tmp_path).checkpoints()[0].unlink()
    part = finetune(
        pretrained(), TOKENIZER, DATA, settings, folder=tmp_path, resume=True, progress=False
    )
    assert bits(whole.model) == bits(part.model)
    assert whole.outcome.figures == part.outcome.figures
    with pytest.raises(CheckpointError, match="Pass resume=True to continue it"):
        finetune(pretrained(), TOKENIZER, DATA, settings, folder=tmp_path, progress=False)
    other = FinetuneSettings(epochs=1, lr=1e-3)
    with pytest.raises(CheckpointError, match="another run: 'lr'"):
        finetune(pretrained(), TOKENIZER, DATA, other, folder=tmp_path, resume=True, progress=False)


def test_what_is_wrong_is_told():
    with pytest.raises(ArgumentError, match="'length' must be at most the model's 16, got 17"):
        finetune(pretrained(), TOKENIZER, DATA, FinetuneSettings(length=17))
    one = LabelledTexts(["a", "b"], np.zeros(2, np.int64), ("only",))
    with pytest.raises(DataError, match="at least two classes, got only 'only'"):
        finetune(pretrained(), TOKENIZER, one, FinetuneSettings())
    with pytest.raises(ArgumentTypeError, match="'pretrained' must be a model with float weights"):
        finetune(pretrained().quantize("int8"), TOKENIZER, DATA, FinetuneSettings())
    few = LabelledTexts(["a", "b"], np.arange(2), ("x", "y"))
    with pytest.raises(DataError, match="to train on and to hold out, got 2"):
        finetune(pretrained(), TOKENIZER, few, FinetuneSettings())
    small = FastBertForMaskedLM(FastBertConfig(9, 4, 1, 1, feedforward_size=1, positions=9))
    with pytest.raises(CheckpointError, match="at most the model's 9 tokens"):
        finetune(small, TOKENIZER, DATA, FinetuneSettings())
    model = FastBertForSequenceClassification(
        FastBertConfig(9, 4, 1, 1, feedforward_size=1, positions=9, classes=2, labels=("a", "b"))
    )
    with pytest.raises(DataError, match="must have the model's classes"):
        evaluate_texts(model, TOKENIZER, DATA)


def bert(head="pooler", **changes):
    """An encoder whose feedforwards are trees, as a distillation gives one."""
    sizes = {"feedforward": "fff", "feedforward_size": 2, "depth": 2, "positions": 16}
    config = BertConfig(TOKENIZER.vocabulary, 32, 1, 2, head=head, **(sizes | changes))
    return BertEncoder(config, rng=0)


@pytest.mark.parametrize("head", ["pooler", None])
def test_a_classifier_has_the_encoder_of_a_bert_and_its_pooler(head):
    start = bert(head, cut=9)
    before = bits(start)
    settings = FinetuneSettings(epochs=1, batch_size=120, validation=0.0, lr=0.0, dropout=0.0)
    done = finetune(start, TOKENIZER, DATA, settings, progress=False)
    assert type(done.model) is BertForSequenceClassification
    after = bits(done.model)
    assert bits(start) == before == {name: after[name] for name in before}
    assert done.model.params["pooler.weights"].any()
    config = done.model.config
    assert (config.labels, config.longest, config.head) == (("bad", "good"), 9, None)
    assert config.attention_dropout == config.classifier_dropout == 0.0
    assert evaluate_texts(done.model, TOKENIZER, DATA)["loss"] > 0.0
    with pytest.raises(ArgumentError, match="'length' must be at most the model's 9, got 10"):
        finetune(start, TOKENIZER, DATA, FinetuneSettings(length=10))


@pytest.mark.slow
@pytest.mark.parametrize("pooler", ["zero_index", "avg"])
def test_a_bert_with_trees_learns(pooler):
    settings = FinetuneSettings(lr=3e-3, epochs=12, pooler=pooler)
    done = finetune(bert(), TOKENIZER, DATA, settings, progress=False)
    assert evaluate_texts(done.model, TOKENIZER, DATA)["accuracy"] > 0.95


def test_the_head_of_another_classifier_is_not_kept():
    config = dataclasses.replace(CONFIG, classes=2)
    start = FastBertForSequenceClassification(config, rng=1)
    settings = FinetuneSettings(epochs=1, batch_size=120, validation=0.0, lr=0.0)
    done = finetune(start, TOKENIZER, DATA, settings, progress=False)
    assert bits(done.model)["pooler.weights"] == bits(start)["pooler.weights"]
    assert bits(done.model)["head.weights"] != bits(start)["head.weights"]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"epochs": 0}, {"batch_size": 0}, {"lr": -1}, {"eps": -1}, {"weight_decay": -1}),
        *({"dropout": 2}, {"pooler": "none"}, {"length": 2}, {"validation": 1.0}, {"seed": -1}),
        *({"validation": -1}, {"checkpoint_seconds": -1}, {"keep": 0}),
    ],
    ids=str,
)
def test_settings_are_checked_before_any_work(wrong):
    (name,) = wrong
    with pytest.raises(ArgumentError, match=f"argument '{name}' must be"):
        FinetuneSettings(**wrong)


@pytest.fixture
def folder(tmp_path):
    pretrained().save_pretrained(tmp_path / "bert")
    TOKENIZER.save(tmp_path / "bert")
    lines = [json.dumps({"text": text, "label": label}) for text, label in texts(60)]
    (tmp_path / "films.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_the_command(folder, capsys):
    arguments = ["finetune", folder / "bert", folder / "films.jsonl", "--out", folder / "judge"]
    arguments += ["--epochs=1", "--test", folder / "films.jsonl", "--json"]
    assert main([str(argument) for argument in arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["validation"]) == set(report["test"]) == {"loss", "accuracy"}
    model = FastBertForSequenceClassification.from_pretrained(folder / "judge")
    assert model.config.labels == ("bad", "good")
    data = read_labelled(str(folder / "films.jsonl"))
    assert evaluate_texts(model, Tokenizer.load(folder / "judge"), data) == report["test"]
    assert not RunFolder(f"{folder / 'judge'}.training").checkpoints()
    assert main([*map(str, arguments), "--resume"]) == 1
    assert f"'{folder / 'judge'}' is finished" in capsys.readouterr().err


def test_the_command_takes_a_distilled_bert(folder, capsys):
    bert().save_pretrained(folder / "bert")
    arguments = [folder / "bert", folder / "films.jsonl", "--out", folder / "judge", "--epochs=1"]
    assert main(["finetune", *map(str, arguments), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["validation"]) == {"loss", "accuracy"}
    model = BertForSequenceClassification.from_pretrained(folder / "judge")
    assert (model.config.feedforward, model.config.labels) == ("fff", ("bad", "good"))
    texts = ["--text", "a fine film", "--text", "a poor film"]
    assert main(["classify", str(folder / "judge"), *texts]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] in ("bad", "good") for line in lines] == [True, True]


def test_the_command_reads_other_separators_and_prints_its_evaluations(folder, capsys):
    path = folder / "films.csv"
    path.write_text("text;label\n" + "".join(f"{text};{label}\n" for text, label in texts(60)))
    arguments = ["finetune", folder / "bert", path, "--out", folder / "judge", "--epochs=2"]
    assert main([str(argument) for argument in arguments]) == 1
    assert "separated by ';': pass --separator ';'" in capsys.readouterr().err
    assert main([*map(str, arguments), "--separator", ";"]) == 0
    lines = re.findall(r"^step (\d+) of (\d+), .*$", capsys.readouterr().err, re.M)
    assert [int(step) / int(steps) for step, steps in lines] == [0.5, 1]


def test_the_command_tells_what_is_wrong(folder, capsys):
    def error(*arguments):
        assert main(["finetune", "--out", str(folder / "judge"), *map(str, arguments)]) == 1
        return capsys.readouterr().err

    films = folder / "films.jsonl"
    assert "line 1: must have a 'text' and a 'score'" in error(
        folder / "bert", films, "--label", "score"
    )
    assert "line 1: must be a number, got 'good'" in error(folder / "bert", films, "--regression")
    assert "must be a folder" in error(films, films)
    before = (folder / "bert" / "config.json").read_bytes()
    assert "argument '--out' must not be one of the inputs" in error(
        folder / "bert", films, "--out", folder / "bert"
    )
    assert (folder / "bert" / "config.json").read_bytes() == before
    strange = folder / "bert" / "tokenizer.json"
    for argv in ([strange], [films, "--test", strange]):
        assert f"file '{strange}': must end with .csv or .jsonl" in error(folder / "bert", *argv)
