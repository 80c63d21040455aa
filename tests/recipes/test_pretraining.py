"""Pretraining: it learns, resumes to the bit after kill -9, and says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.cli import main
from fffcpu.errors import ArgumentError, CheckpointError, DataError
from fffcpu.models import FastBertForMaskedLM
from fffcpu.recipes.pretraining import PretrainSettings, pretrain
from fffcpu.text import Tokenizer, build_corpus
from fffcpu.training.run_folder import HISTORY, RunFolder

WORDS = ("red", "blue", "green"), ("cat", "dog", "bird"), ("runs", "sleeps", "sings")
TINY = {
    "width": 16, "layers": 1, "heads": 2, "feedforward_size": 2, "depth": 2,
    "length": 16, "batch_size": 8, "small_batch_size": 4,
}  # fmt: skip
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]


def sentences(count, seed=0):
    """Sentences in which neighbours tell each other: red cats run, blue dogs sleep."""
    rng = np.random.default_rng(seed)
    for kind in rng.integers(0, 3, count):
        yield "the " + " ".join(words[kind] for words in WORDS) + "."


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "sentences.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in sentences(1500)))
    return path


@pytest.fixture(scope="module")
def corpus(text):
    tokenizer = Tokenizer.train(sentences(50), 200)
    return build_corpus([text], tokenizer, text.parent / "corpus", validation=0.1)


def bits(model):
    return {name: array.tobytes() for name, array in model.params.items()}


@pytest.mark.slow
def test_learns_what_neighbours_tell(corpus):
    wide = {"width": 64, "heads": 4}  # initial weights are small, and few of them hardly move
    settings = PretrainSettings(**TINY | wide, epochs=12, lr=3e-3)
    done = pretrain(corpus, settings, progress=False)
    assert done.outcome.figures["validation_accuracy"] > 0.7
    assert done.outcome.rows >= 8 * (len(corpus.training) // 64) * 64
    start = FastBertForMaskedLM(done.model.config, rng=0)
    assert bits(start) != bits(done.model)


@pytest.mark.parametrize("feedforward", ["fff", "ff"])
def test_a_broken_off_run_goes_on_to_the_same_bits(feedforward, corpus, tmp_path):
    settings = PretrainSettings(
        **TINY | {"feedforward": feedforward}, steps=12, evaluate_every=5, checkpoint_seconds=0
    )
    whole = pretrain(corpus, settings, folder=tmp_path / "whole", progress=False)
    pretrain(corpus, settings, folder=tmp_path / "part", progress=False)
    newest, before = RunFolder(tmp_path / "part").checkpoints()[:2]
    newest.unlink()
    assert before.name < newest.name
    part = pretrain(corpus, settings, folder=tmp_path / "part", resume=True, progress=False)
    assert bits(whole.model) == bits(part.model)
    assert whole.outcome.figures == part.outcome.figures
    assert whole.outcome.rows == part.outcome.rows
    lines = [
        [
            {k: v for k, v in line.items() if k != "seconds"}
            for line in RunFolder(folder).read_history()
        ]
        for folder in (tmp_path / "whole", tmp_path / "part")
    ]
    assert lines[0] == lines[1]


def test_routes_learn_if_they_are_to(corpus, monkeypatch):
    asked, backward = [], FastFeedForward.backward

    def watch(layer, dy, cache, row_sparse, straight_through):
        asked.append((layer.config.two_sided, straight_through))
        return backward(layer, dy, cache, row_sparse, straight_through)

    monkeypatch.setattr(FastFeedForward, "backward", watch)
    for choice in (True, False):
        asked.clear()
        settings = {**TINY, "two_sided": choice, "straight_through": choice, "steps": 2}
        pretrain(corpus, PretrainSettings(**settings), progress=False)
        assert set(asked) == {(choice, choice)}


def test_callbacks_see_evaluations(corpus):
    seen = []
    settings = PretrainSettings(**TINY, steps=4, evaluate_every=2)
    done = pretrain(corpus, settings, progress=False, callbacks=[seen.append])
    assert [evaluation.step for evaluation in seen] == [2, 4]
    assert seen[-1].rows == done.outcome.rows
    assert dict(seen[-1].figures) == done.outcome.figures


def test_another_run_is_not_resumed(corpus, tmp_path):
    pretrain(corpus, PretrainSettings(**TINY, steps=1), folder=tmp_path, progress=False)
    other = PretrainSettings(**TINY, steps=2)
    with pytest.raises(CheckpointError, match="another run: 'steps' was 1 and is 2"):
        pretrain(corpus, other, folder=tmp_path, resume=True, progress=False)
    with pytest.raises(CheckpointError, match="Pass resume=True to continue it"):
        pretrain(corpus, other, folder=tmp_path, progress=False)


def test_a_budget_in_seconds(corpus):
    done = pretrain(corpus, PretrainSettings(**TINY, seconds=0.3), progress=False)
    assert 0.3 <= done.outcome.seconds < 30
    assert done.outcome.steps >= 1


def test_what_is_wrong_is_told(corpus):
    with pytest.raises(ArgumentError, match="must be given alone"):
        PretrainSettings(steps=1, seconds=1.0)
    with pytest.raises(DataError, match="must have at least 9999999 tokens"):
        pretrain(corpus, PretrainSettings(**TINY | {"length": 9999999}), progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"epochs": 0}, {"epochs": float("nan")}, {"steps": 0}, {"seconds": 0}, {"seconds": -1}),
        *({"width": 1}, {"layers": -1}, {"heads": 3}, {"feedforward": "moe"}, {"depth": 99}),
        *({"feedforward_size": 0}, {"initial_std": -1}, {"length": 0}, {"batch_size": 0}),
        *({"small_batch_size": 0}, {"lr": -1}, {"weight_decay": -1}, {"max_norm": -1}),
        *({"mask_share": 5}, {"mask_share": 0.001}, {"ramp": 3}, {"evaluate_every": 0}),
        *({"validation_sequences": -1}, {"checkpoint_seconds": -1}, {"keep": 0}, {"seed": -1}),
    ],
    ids=str,
)
def test_settings_are_checked_before_any_work(wrong):
    (name,) = wrong
    with pytest.raises(ArgumentError, match=f"argument '{name}' must "):
        PretrainSettings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--hours=-1"], "--hours"),
        (["--hours=inf"], "--hours"),
        (["--validation=1.5"], "validation"),
        (["--validation=1"], "validation"),
        (["--vocabulary=0"], "vocabulary"),
        (["--keep=0"], "keep"),
        (["--longest-word=0"], "longest_word"),
        (["--tokenizer=absent", "--keep-accents"], "--keep-accents"),
        (["--tokenizer=absent", "--longest-word=9"], "--longest-word"),
    ],
    ids=str,
)
def test_options_are_checked_before_any_work(wrong, named, text, tmp_path, capsys):
    assert main(["pretrain", str(text), "--out", str(tmp_path / "bert"), *OPTIONS, *wrong]) == 1
    assert f"argument '{named}' must " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_that_never_began_to_train_stands_in_nobodys_way(text, tmp_path, capsys):
    arguments = ["pretrain", str(text), "--out", str(tmp_path / "bert"), *OPTIONS, "--steps=1"]
    corpus = tmp_path / "bert.training" / "corpus"
    for _ in range(2):
        assert main([*arguments, "--vocabulary=64", "--length=999999"]) == 1
        assert "at least 999999 tokens" in capsys.readouterr().err
        assert (corpus / "corpus.json").exists()
    assert main([*arguments, "--validation=0.1", "--resume"]) == 1
    assert "'held_out' differs" in capsys.readouterr().err
    assert main([*arguments, "--vocabulary=30", "--validation=0.1"]) == 0
    assert FastBertForMaskedLM.from_pretrained(tmp_path / "bert").config.vocabulary <= 30
    assert not corpus.exists()


def test_a_tokenizer_by_other_rules_is_that_of_the_model(text, tmp_path):
    out = tmp_path / "bert"
    rules = ["--vocabulary=30", "--keep-accents", "--longest-word=150"]
    assert main(["pretrain", str(text), "--out", str(out), *OPTIONS, "--steps=1", *rules]) == 0
    definition = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    assert definition["model"]["max_input_chars_per_word"] == 150
    assert definition["normalizer"]["normalizers"][1]["strip_accents"] is False


def test_only_a_corpus_is_removed(text, tmp_path):
    corpus = tmp_path / "bert.training" / "corpus"
    corpus.mkdir(parents=True)
    (corpus / "mine").touch()
    arguments = [*OPTIONS, "--vocabulary=64", "--length=999999"]
    assert main(["pretrain", str(text), "--out", str(tmp_path / "bert"), *arguments]) == 1
    assert (corpus / "mine").exists()


@pytest.mark.slow
@pytest.mark.thorough  # test_trainer.py kills a training run, too
def test_the_command_survives_kill_9(text, tmp_path):
    tokenizer = tmp_path / "tokenizer.json"  # training one may break ties in either way
    Tokenizer.train(sentences(50), 64).save(tokenizer)
    options = [*OPTIONS, f"--tokenizer={tokenizer}", "--epochs=6", "--checkpoint-seconds=0.05"]

    def command(out):
        return [sys.executable, "-m", "fffcpu", "pretrain", str(text), "--out", str(out), *options]

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    broken = subprocess.Popen(command(tmp_path / "broken"), stderr=subprocess.PIPE)
    folder, deadline = tmp_path / "broken.training", time.monotonic() + 60
    while not RunFolder(folder).checkpoints() and time.monotonic() < deadline:
        time.sleep(0.02)
    broken.kill()
    broken.communicate()
    assert broken.returncode == -signal.SIGKILL
    assert not (tmp_path / "broken").exists()
    done = subprocess.run(
        [*command(tmp_path / "broken"), "--resume"], check=True, capture_output=True, text=True
    )
    assert "continuing from checkpoint-" in done.stderr
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        whole, broken_off = (tmp_path / run / name for run in ("whole", "broken"))
        assert whole.read_bytes() == broken_off.read_bytes(), name


def test_the_command_in_short(text, tmp_path, capsys):
    out = tmp_path / "bert"
    arguments = [
        *OPTIONS,
        "--vocabulary=64",
        "--steps=3",
        "--json",
        "--plot",
        str(tmp_path / "h.svg"),
    ]
    assert main(["pretrain", str(text), "--out", str(out), *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == 3
    assert report["validation_loss"] > 0
    assert (tmp_path / "h.svg").read_text().count("<svg") == 1
    model = FastBertForMaskedLM.from_pretrained(out)
    assert report["parameters"] == model.params.count
    assert os.listdir(f"{out}.training") != []
    assert not RunFolder(f"{out}.training").checkpoints()
    before = (out / "model.safetensors").read_bytes()
    assert main(["pretrain", str(text), "--out", str(out), *arguments, "--resume"]) == 1
    assert f"'{out}' is finished" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == before


def test_a_slash_after_the_folder_changes_nothing(text, tmp_path, capsys):
    arguments = ["pretrain", str(text), "--out", f"{tmp_path / 'bert'}/", *OPTIONS]
    assert main([*arguments, "--vocabulary=64", "--steps=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["history"] == str(
        tmp_path / "bert.training" / HISTORY
    )
    assert sorted(os.listdir(tmp_path)) == ["bert", "bert.training"]


def test_a_training_in_the_folder_of_its_text_goes_on(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text("\n".join(sentences(50)))
    monkeypatch.chdir(tmp_path)
    arguments = ["pretrain", ".", "--out", "bert", *OPTIONS, "--vocabulary=64", "--steps=1"]
    arguments += ["--validation=0"]

    def power_cut(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(FastBertForMaskedLM, "save_pretrained", power_cut)
        assert main(arguments) == 1
    assert (tmp_path / "bert.training" / HISTORY).stat().st_size > 0
    assert main([*arguments, "--resume"]) == 0
    assert "continuing from checkpoint-" in capsys.readouterr().err
    FastBertForMaskedLM.from_pretrained(tmp_path / "bert")


@pytest.mark.parametrize("out", [".", ".."])
def test_the_folder_must_have_a_name(out, text, tmp_path, capsys, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "config.json").touch()
    monkeypatch.chdir(tmp_path / "inner")
    assert main(["pretrain", str(text), "--out", out]) == 1
    assert f"argument '--out' must end with a name, got '{out}'" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["config.json", "inner"]


def test_the_command_tells_what_is_wrong(text, tmp_path, capsys):
    def error(*arguments):
        assert main(["pretrain", *map(str, arguments)]) == 1
        return capsys.readouterr().err

    assert "No such file or directory: 'absent.txt'" in error("absent.txt", "--out", tmp_path / "a")
    assert "'heads' must divide" in error(text, "--out", tmp_path / "a", "--heads", 3)
    assert "must be a folder" in error(text, "--out", text)
    assert "'--out' must be a new folder" in error(text, "--out", text.parent)
    assert "must be given alone" in error(text, "--out", tmp_path / "a", "--steps=1", "--hours=1")
