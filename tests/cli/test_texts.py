"""The commands for texts: fill-mask, classify, embed, and convert for folders of models."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fffcpu.cli import main
from fffcpu.cli.support import results
from fffcpu.inference import pipelines
from fffcpu.inference.pipelines import FillMask, TextClassifier, TextEmbedder
from fffcpu.models import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    FastBertConfig,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from fffcpu.models.folders import INDEX_FILE
from fffcpu.text import Tokenizer
from tests.support.golden_models import GOLDEN

WORDS = "decoder.weight"
TEXTS = ["a cat", "", "the dog sat on the mat", '[MASK], "quoted"', "café"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a masked language model, a classifier and a regression."""
    tokenizer = Tokenizer.train(["a cat and the dog sat on the mat"], vocabulary=80)
    places = {}
    for name, classes, labels in (
        ("bert", None, None),
        ("judge", 2, ("no", "yes")),
        ("rater", 1, None),
    ):
        kind = FastBertForMaskedLM if classes is None else FastBertForSequenceClassification
        size = {"feedforward_size": 1, "depth": 2, "positions": 12, "initial_std": 0.3}
        config = FastBertConfig(80, 8, 1, 2, **size, classes=classes, labels=labels)
        places[name] = tmp_path_factory.mktemp(name)
        kind(config, rng=0).save_pretrained(places[name])
        tokenizer.save(places[name])
    return places


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The same texts in files of every kind, in the working directory."""
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(TEXTS) + "\n"
    objects = "".join(json.dumps({"text": text, "body": "no"}) + "\n" for text in TEXTS)
    (tmp_path / "x.txt").write_text(lines, encoding="utf-8")
    (tmp_path / "x.jsonl").write_text(objects, encoding="utf-8")
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(objects.encode()))
    with open(tmp_path / "x.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(TEXTS)])
    monkeypatch.setattr(sys, "stdin", piped(lines))
    return tmp_path


def piped(content):
    """Standard input of these bytes, as of a pipe; of text in UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    return io.TextIOWrapper(io.BytesIO(data), "ascii")


def assert_one_line(result, message):
    status, out, err = result
    assert (status, out) == (1, "")
    assert err.startswith("fffcpu: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("name", ["fill-mask", "classify", "embed"])
def test_help_teaches(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    out = capsys.readouterr().out
    assert "examples:\n  fffcpu " in out
    assert "output" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    "argv", [["fill-mask", "[MASK]"], ["classify", "m", "t"], ["embed", "m", "t", "--out", "x.npy"]]
)
def test_the_missing_extra_is_named(argv, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert_one_line(command(*argv), "pip install 'fffcpu[text]'")


# --- fill-mask ------------------------------------------------------------------------------------


def test_fill_mask_for_people(command, models):
    argv = ("fill-mask", "the [MASK] sat", "a [MASK] [MASK]", "--model", models["bert"])
    status, out, err = command(*argv, "--top", 2)
    assert (status, err) == (0, "")
    lines = ["the [MASK] sat"]
    (one,), two = FillMask.from_pretrained(models["bert"]).fill(["the [MASK] sat", argv[2]], 2)
    lines += [f"  {guess.probability:.3f}  {guess.token}" for guess in one]
    lines += ["a [MASK] [MASK]"]
    for number, guesses in enumerate(two, 1):
        lines += [f"  mask {number}"]
        lines += [f"  {guess.probability:.3f}  {guess.token}" for guess in guesses]
    assert out.splitlines() == lines


def test_fill_mask_of_standard_input_in_json(command, models, files):
    status, out, err = command("fill-mask", "--model", models["bert"], "--top", 3, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report["model"] == str(models["bert"])
    assert [entry["text"] for entry in report["texts"]] == TEXTS
    assert [len(entry["masks"]) for entry in report["texts"]] == [0, 0, 0, 1, 0]
    ((guesses,),) = [entry["masks"] for entry in report["texts"] if entry["masks"]]
    assert [set(guess) for guess in guesses] == [{"token", "probability"}] * 3


def test_fill_mask_takes_the_packages_own_model(command, models, monkeypatch):
    monkeypatch.setattr(pipelines, "default_model_folder", lambda: models["bert"])
    own = command("fill-mask", "[MASK]")
    assert own == command("fill-mask", "[MASK]", "--model", models["bert"])
    assert own[0] == 0


def test_fill_mask_refuses(command, models):
    model = ("--model", models["bert"])
    assert_one_line(command("fill-mask", "a cat", *model), "'TEXT' must contain [MASK]")
    assert_one_line(command("fill-mask", "[MASK]", "--top", 0, *model), "argument 'top' must be")
    judge = models["judge"]
    assert_one_line(command("fill-mask", "[MASK]", "--model", judge), "holds a classifier")
    assert_one_line(command("fill-mask", "[MASK]", "--model", "absent"), "absent")


def test_fill_mask_names_the_text_it_cannot_take(command, models, monkeypatch):
    far = "cat " * 20 + "[MASK]"
    model = ("--model", models["bert"], "--top", 1)
    texts = ["a [MASK]", far, "no mask", "the [MASK]", "cat [MASK]" + " dog" * 20]
    monkeypatch.setattr(sys, "stdin", piped("\n".join(texts)))
    status, out, err = command("fill-mask", *model)
    assert status == 1
    assert [line for line in out.splitlines() if "MASK" in line] == [texts[0], texts[3], texts[4]]
    named, cut, summary = err.splitlines()
    assert named.startswith("fffcpu: standard input, line 2: argument 'texts' must have every mask")
    assert cut == "1 of 5 texts was cut to the model's longest text, 12 tokens"
    assert summary.startswith("fffcpu: error: 1 of 5 texts has an error and no answer")
    status, out, err = command("fill-mask", *texts, *model, "--json")
    report = json.loads(out)
    assert [list(entry) for entry in report["texts"]] == [
        ["text", "error" if text == far else "masks"] for text in texts
    ]
    assert [report[name] for name in ("errors", "cut", "longest")] == [1, 1, 12]
    assert {"seconds", "start_seconds"} <= set(report)
    assert (status, "fffcpu: text 2: argument" in err) == (1, True)
    status, out, err = command("fill-mask", *texts, *model, "--strict")
    assert (status, err.count("\n")) == (1, 1)
    assert [line for line in out.splitlines() if "MASK" in line] == texts[:1]
    assert "error: text 2: argument 'texts' must have every mask" in err


# --- Texts with errors ----------------------------------------------------------------------------

BROKEN = {
    "x.jsonl": '{"text": "a cat"}\n{"text": 3}\n\nnonsense\n[]\n{"text": "the dog"}',
    "x.csv": 'text,n\na cat,1\n"the, dog",2,3\n\nfew\nthe dog,2\n',
}
"""Files of five texts, of which the first and the last can be read."""

PLACES = {"x.jsonl": ("line 2", "line 4", "line 5"), "x.csv": ("line 3", "line 4", "line 5")}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_text_keeps_its_place_and_is_named(name, command, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(BROKEN[name])
    judge = ("classify", models["judge"], name)
    good = TextClassifier.from_pretrained(models["judge"]).probabilities(["a cat", "the dog"])
    expected = [good[0].max(), None, None, None, good[1].max()]

    def check(result):
        status, out, err = result
        *named, summary = err.splitlines()
        for line, place in zip(named, PLACES[name], strict=True):
            assert line.startswith(f"fffcpu: file '{name}', {place}: must ")
        assert summary.startswith("fffcpu: error: 3 of 5 texts have an error and no answer")
        assert status == 1
        return out

    def check_cells(rows):
        assert [row == ["", ""] for row in rows] == [number is None for number in expected]
        assert [np.float32(row[1]) for row in rows[::4]] == expected[::4]

    check_cells([line.split("\t") for line in check(command(*judge)).splitlines()])
    report = json.loads(check(command(*judge, "--out", "y.csv", "--json")))
    assert [report[key] for key in ("texts", "errors", "cut", "longest")] == [5, 3, 0, 12]
    with open("y.csv", encoding="utf-8") as file:
        check_cells(list(csv.reader(file))[1:])
    check(command(*judge, "--out", "y.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    assert ["error" in row for row in rows] == [number is None for number in expected]
    assert PLACES[name][0] in rows[1]["error"]
    check(command("embed", models["bert"], name, "--out", "y.npy"))
    vectors = np.load("y.npy")
    assert np.isnan(vectors).all(axis=1).tolist() == [number is None for number in expected]
    for other in (judge, ("embed", models["bert"], name, "--out", "z.npy")):
        assert_one_line(command(*other, "--strict"), f"file '{name}', {PLACES[name][0]}: must ")
    assert not (tmp_path / "z.npy").exists()


def test_a_bad_text_of_a_regression_leaves_an_empty_cell(command, models, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(BROKEN["x.jsonl"])
    status, out, _ = command("classify", models["rater"], path)
    assert (status, [bool(line) for line in out.splitlines()]) == (1, [True, *[False] * 3, True])
    command("classify", models["rater"], path, "--out", tmp_path / "y.csv")
    with open(tmp_path / "y.csv", encoding="utf-8") as file:
        assert [row != [""] for row in csv.reader(file)] == [True, True, *[False] * 3, True]


def test_a_file_without_a_readable_text_is_an_error_at_once(command, models, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"title": "a"}\n{"title": "b"}\n')
    result = command("classify", models["judge"], path, "--out", tmp_path / "y.csv")
    assert_one_line(result, "line 1: must be an object with text in 'text'")
    assert not (tmp_path / "y.csv").exists()


@pytest.mark.parametrize("name", ["x.txt", "-"])
def test_lines_are_those_of_wc(name, command, models, tmp_path, monkeypatch):
    content = b"one\rstill one\ntwo\x0b\x0c\x1c two\r\n\xc2\x85three \xe2\x80\xa8\nlast"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", piped(content))
    status, out, err = command("classify", models["judge"], name)
    assert (status, err, len(out.splitlines())) == (0, "", content.count(b"\n") + 1)
    monkeypatch.setattr(sys, "stdin", piped(b"\xef\xbb\xbfcat\r\n\n"))
    assert command("classify", models["judge"], "-")[1].count("\n") == 2


@pytest.mark.parametrize("name", ["x.txt", "-"])
def test_bytes_that_are_not_utf_8_do_not_silence_the_other_texts(
    name, command, models, tmp_path, monkeypatch
):
    content = "caf\u00e9\na cat\n".encode("latin-1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", piped(content))
    with pytest.warns(UserWarning, match=r"line 1: is not entirely UTF-8"):
        status, out, _ = command("classify", models["judge"], name)
    assert (status, out.count("\n")) == (0, 2)


def test_standard_input_may_be_closed(command, models, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    for argv in (("classify", models["judge"], "-"), ("fill-mask", "--model", models["bert"])):
        assert_one_line(command(*argv), "standard input must be open")


@pytest.mark.parametrize("argv", [("classify", "judge"), ("embed", "bert")])
def test_texts_that_are_cut_are_counted(argv, command, models, tmp_path):
    (tmp_path / "x.txt").write_text("a cat\n" + ("cat " * 11 + "\n") * 2 + "cat " * 10 + "\n")
    name, model = argv
    out = tmp_path / ("y.csv" if name == "classify" else "y.npy")
    full = (name, models[model], tmp_path / "x.txt", "--out", out)
    status, _, err = command(*full)
    assert (status, err) == (0, "2 of 4 texts were cut to the model's longest text, 12 tokens\n")
    report = json.loads(command(*full, "--json")[1])
    assert [report[key] for key in ("texts", "errors", "cut", "longest")] == [4, 0, 2, 12]


def test_the_rate_of_texts_is_that_after_the_start(command, models, files, monkeypatch):
    now = iter([0.0, 10.0, 12.0])
    monkeypatch.setattr(results, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    status, out, _ = command("embed", models["bert"], "x.txt", "--out", "x.npy")
    assert status == 0
    assert out == (
        "x.npy: 5 texts in 2.00 s, 2.50 texts/s; 10.0 s to load the model and its kernels\n"
    )


@pytest.mark.parametrize("separator", [";", r"\t"])
def test_other_separators_are_options(separator, command, models, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("n,text\n1,a cat\n".replace(",", separator.replace(r"\t", "\t")))
    assert_one_line(command("classify", models["judge"], path), "pass --separator ")
    status, out, _ = command("classify", models["judge"], path, "--separator", separator)
    assert (status, out.count("\n")) == (0, 1)


# --- classify -------------------------------------------------------------------------------------


def judged(models, name="judge"):
    return TextClassifier.from_pretrained(models[name]).probabilities(TEXTS)


@pytest.mark.parametrize("source", ["x.txt", "x.jsonl", "x.jsonl.gz", "x.csv", "-"])
def test_classify_reads_every_kind_of_file(source, command, models, files):
    status, out, err = command("classify", models["judge"], source)
    assert (status, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    expected = judged(models)
    assert [line[0] for line in lines] == [("no", "yes")[row.argmax()] for row in expected]
    assert [np.float32(line[1]) for line in lines] == [row.max() for row in expected]


def test_classify_writes_csv(command, models, files):
    status, out, err = command("classify", models["judge"], "x.txt", "--out", "y.csv")
    assert (status, err) == (0, "")
    assert out.startswith("y.csv: 5 texts in ")
    with open(files / "y.csv", encoding="utf-8") as file:
        head, *lines = csv.reader(file)
    assert head == ["label", "probability"]
    assert [np.float32(line[1]) for line in lines] == [row.max() for row in judged(models)]


def test_classify_writes_json_lines(command, models, files):
    argv = ("classify", models["judge"], "x.csv", "--out", "y.jsonl", "--json")
    status, out, err = command(*argv)
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["out"], report["texts"]) == ("y.jsonl", 5)
    lines = [json.loads(line) for line in (files / "y.jsonl").read_text().splitlines()]
    for line, row in zip(lines, judged(models), strict=True):
        assert list(line) == ["label", "probability", "probabilities"]
        probabilities = line["probabilities"]
        assert [np.float32(probabilities[name]) for name in ("no", "yes")] == row.tolist()
        assert probabilities[line["label"]] == line["probability"] == max(probabilities.values())


def test_classify_of_a_regression(command, models, files):
    status, out, _ = command("classify", models["rater"], "x.txt", "--out", "y.csv")
    assert status == 0
    head, *lines = (files / "y.csv").read_text().splitlines()
    assert head == "prediction"
    assert [np.float32(line) for line in lines] == judged(models, "rater")[:, 0].tolist()
    status, out, _ = command("classify", models["rater"], "--text", TEXTS[0], "--json")
    (entry,) = json.loads(out)["texts"]
    assert np.float32(entry["prediction"]) == judged(models, "rater")[0, 0]


def test_classify_of_no_texts_has_a_header(command, models, files):
    (files / "none.txt").touch()
    assert command("classify", models["judge"], "none.txt", "--out", "y.csv")[0] == 0
    assert (files / "y.csv").read_text() == "label,probability\n"


def test_classify_takes_texts_themselves_and_threads(command, models):
    argv = ("classify", models["judge"], "--text", TEXTS[0], "--text", TEXTS[2], "--threads", 1)
    status, out, _ = command(*argv)
    assert status == 0
    found = [np.float32(line.split("\t")[1]) for line in out.splitlines()]
    expected = TextClassifier.from_pretrained(models["judge"]).probabilities([TEXTS[0], TEXTS[2]])
    np.testing.assert_allclose(found, expected.max(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["judge"], "'TEXTS' or '--text' must be given, and not both"),
        (["judge", "x.txt", "--text", "a"], "'TEXTS' or '--text' must be given, and not both"),
        (["judge", "x.txt", "--out", "y.npy"], "'--out' must end in .csv or .jsonl, got 'y.npy'"),
        (["judge", "x.csv", "--out", "x.csv"], "'--out' must not be one of the inputs"),
        (["judge", "absent.txt"], "No such file or directory: 'absent.txt'"),
        (["judge", "x.npy"], "must end with .txt, .jsonl or .csv"),
        (
            ["judge", "x.jsonl", "--field", "title"],
            "line 1: must be an object with text in 'title'",
        ),
        (["judge", "x.csv", "--field", "title"], "line 1: must have a column 'title', got"),
        (["judge", "x.txt", "--threads", "0"], "must be an integer"),
        (["bert", "x.txt"], "holds another model"),
    ],
)
def test_classify_refuses(argv, message, command, models, files):
    (files / "x.npy").touch()
    before = sorted(os.listdir())
    name, *others = argv
    assert_one_line(command("classify", models[name], *others), message)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("label", ["a\tb", "a\nb", "a\rb", r"a\b", r"a\tb"])
def test_classify_prints_a_line_a_text_whatever_the_label(label, command, tmp_path):
    config = FastBertConfig(
        80, 8, 1, 2, feedforward_size=1, positions=12, classes=2, labels=(label, label * 2)
    )
    FastBertForSequenceClassification(config, rng=0).save_pretrained(tmp_path)
    Tokenizer.train(["a cat and the dog sat on the mat"], vocabulary=80).save(tmp_path)
    status, out, _ = command("classify", tmp_path, "--text", "a cat")
    assert (status, out.count("\n")) == (0, 1)
    printed, _ = out.splitlines()[0].split("\t")
    assert printed.encode().decode("unicode_escape") in config.labels


def test_a_file_is_no_folder_of_a_model(command, models, files):
    weights = models["judge"] / "model.safetensors"
    for argv in (
        ("classify", weights, "x.txt"),
        ("embed", weights, "x.txt", "--out", "x.npy"),
        ("fill-mask", "[MASK]", "--model", weights),
    ):
        assert_one_line(command(*argv), f"'{weights}' must be a folder with 'config.json'")


def test_an_output_that_fails_half_way_leaves_the_old_one(command, models, files, monkeypatch):
    (files / "y.csv").write_text("old")
    monkeypatch.setattr(pipelines, "WINDOW", 2)

    class Broken(io.RawIOBase):
        parts = iter([b"a\nb\nc\n"])

        def readable(self):
            return True

        def readinto(self, buffer):
            for part in self.parts:
                buffer[: len(part)] = part
                return len(part)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Broken())))
    result = command("classify", models["judge"], "-", "--out", "y.csv")
    assert_one_line(result, "Input/output error")
    assert (files / "y.csv").read_text() == "old"
    assert not list(files.glob(".fffcpu*"))


# --- embed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--pooling", "start"), ("--normalize",)])
@pytest.mark.parametrize("source", ["x.jsonl.gz", "-"])
def test_embed_writes_an_array(source, options, command, models, files, monkeypatch):
    monkeypatch.setattr(pipelines, "WINDOW", 2)
    status, out, err = command("embed", models["bert"], source, "--out", "x.npy", *options)
    assert (status, err) == (0, "")
    assert out.startswith("x.npy: 5 texts in ")
    found = np.load(files / "x.npy")
    pooling = "start" if "start" in options else "mean"
    embedder = TextEmbedder.from_pretrained(models["bert"])
    expected = embedder.embed(TEXTS, pooling, normalize="--normalize" in options)
    assert (found.shape, found.dtype) == ((5, 8), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_embed_of_no_texts_in_json(command, models, files):
    (files / "none.txt").touch()
    status, out, _ = command("embed", models["judge"], "none.txt", "--out", "x.npy", "--json")
    assert status == 0
    assert json.loads(out)["shape"] == [0, 8]
    assert np.load(files / "x.npy").shape == (0, 8)


def test_embed_refuses(command, models, files):
    model = models["bert"]
    assert_one_line(command("embed", model, "x.txt", "--out", "x.csv"), "must end in .npy")
    argv = ("embed", model, "x.txt", "--out", "absent/x.npy")
    assert_one_line(command(*argv), "No such file or directory: 'absent'")


# --- BERT -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def berts(models, tmp_path_factory):
    """Folders of two BERTs with heads, with the tokenizer of the others."""
    files = {"tokenizer.json": (models["bert"] / "tokenizer.json").read_text(encoding="utf-8")}
    sizes = {"feedforward_size": 9, "positions": 12, "initial_std": 0.3}
    places = {name: tmp_path_factory.mktemp(name) for name in ("words", "judge")}
    words = BertForMaskedLM(BertConfig(80, 8, 1, 2, **sizes), rng=0)
    words.save_pretrained(places["words"], files=files)
    config = BertConfig(80, 8, 1, 2, classes=2, labels=("no", "yes"), **sizes)
    BertForSequenceClassification(config, rng=0).save_pretrained(places["judge"], files=files)
    return places


def test_the_commands_take_berts(command, berts):
    status, out, _ = command("fill-mask", "a [MASK]", "--model", berts["words"], "--json")
    assert status == 0
    assert len(json.loads(out)["texts"][0]["masks"][0]) == 5
    status, out, _ = command("classify", berts["judge"], "--text", "a cat", "--json")
    assert status == 0
    assert set(json.loads(out)["texts"][0]["probabilities"]) == {"no", "yes"}
    for place, kind, classes in (
        ("words", "BertForMaskedLM", None),
        ("judge", "BertForSequenceClassification", ["no", "yes"]),
    ):
        status, out, _ = command("info", berts[place], "--json")
        assert status == 0
        described = json.loads(out)
        assert (described["kind"], described["classes"]) == (kind, classes)


def test_convert_copies_a_bert(command, berts, models, tmp_path):
    status, out, err = command("convert", berts["judge"], tmp_path / "copy")
    assert (status, err) == (0, "")
    assert out.startswith(
        f"{berts['judge']} (bert, float32) -> {tmp_path / 'copy'} (bert, float32)"
    )
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (berts["judge"] / name).read_bytes()
    argv = ("convert", berts["judge"], tmp_path / "other", "--to", "crammed_bert")
    assert_one_line(command(*argv), "argument '--to' must be bert, since IN is bert, got crammed")
    argv = ("convert", models["judge"], tmp_path / "other", "--to", "bert")
    assert_one_line(command(*argv), "must be crammed_bert or crammed_bert_decoder, since IN is")


# --- convert --------------------------------------------------------------------------------------


def test_convert_stores_the_decoder_and_takes_it_away(command, models, tmp_path):
    argv = ("convert", models["bert"], tmp_path / "a", "--to", "crammed_bert_decoder")
    status, out, err = command(*argv)
    assert (status, err) == (0, "")
    first, second, third = out.splitlines()
    places = (models["bert"], tmp_path / "a")
    assert first == "{} (crammed_bert, float32) -> {} (crammed_bert_decoder, float32)".format(
        *places
    )
    assert second.startswith("  FastBertForMaskedLM: 1 layers of width 8")
    assert third == "  tokenizer: 'tokenizer.json' is copied"
    before = load_file(models["bert"] / "model.safetensors")
    after = load_file(tmp_path / "a" / "model.safetensors")
    assert set(after) - set(before) == {WORDS}
    np.testing.assert_array_equal(after[WORDS], after["encoder.embedding.word_embedding.weight"])
    assert command("convert", tmp_path / "a", tmp_path / "b")[0] == 0
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "b" / name).read_bytes() == (models["bert"] / name).read_bytes()


@pytest.mark.parametrize(("stored", "written"), [("float16", "float32"), ("float64", "float64")])
def test_convert_widens_numbers(stored, written, command, models, tmp_path):
    source, place = tmp_path / "source", tmp_path / "place"
    command("convert", models["judge"], source)
    state = load_file(source / "model.safetensors")
    narrow = {name: array.astype(stored) for name, array in state.items()}
    save_file(narrow, source / "model.safetensors")
    status, out, _ = command("convert", source, place)
    assert status == 0
    assert f"(crammed_bert, {stored}) -> {place} (crammed_bert, {written})" in out
    found = load_file(place / "model.safetensors")
    assert set(found) == set(state)
    for name, array in narrow.items():
        if not name.endswith("norm_factor"):
            np.testing.assert_array_equal(found[name], array.astype(written), strict=True)
    config = json.loads((place / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "yes"}


def shard(folder):
    """Spread a folder's weights over two files."""
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, own in shards.items():
        save_file({name: state[name] for name in own}, folder / file)
    (folder / "model.safetensors").unlink()
    table = {name: file for file, own in shards.items() for name in own}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": table}))


def test_convert_joins_files(command, models, tmp_path):
    command("convert", models["bert"], tmp_path / "a")
    expected = (tmp_path / "a" / "model.safetensors").read_bytes()
    shard(tmp_path / "a")
    status, _, err = command("convert", tmp_path / "a", tmp_path / "b")
    assert (status, err) == (0, "")
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == expected
    (tmp_path / "a" / "two.safetensors").unlink()
    result = command("convert", tmp_path / "a", tmp_path / "c")
    assert_one_line(result, "two.safetensors")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "is damaged"),
        ("[]", "must name files in its own folder in 'weight_map'"),
        ('{"weight_map": {}}', "must name files in its own folder in 'weight_map'"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "must name files in its own folder"),
        ('{"weight_map": {"a": 1}}', "must name files in its own folder"),
    ],
)
def test_a_damaged_index_is_an_error(index, message, command, models, tmp_path):
    command("convert", models["bert"], tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").unlink()
    (tmp_path / "a" / INDEX_FILE).write_text(index)
    assert_one_line(command("convert", tmp_path / "a", tmp_path / "b"), message)


def test_convert_says_where_there_is_no_tokenizer(command, tmp_path):
    status, out, _ = command("convert", GOLDEN / "crammed_fff_cls", tmp_path)
    assert status == 0
    assert "  tokenizer: IN has no 'tokenizer.json'" in out
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


def test_convert_leaves_no_tokenizer_of_another_model(command, models, tmp_path):
    assert command("convert", models["judge"], tmp_path / "out")[0] == 0
    assert command("convert", GOLDEN / "crammed_fff_cls", tmp_path / "out")[0] == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bert", "out.safetensors"], "argument 'OUT' must be a folder, as IN is"),
        (["bert", "x.txt"], "'x.txt' must be a folder or a new path, got a file"),
        (["bert", "{bert}"], "argument 'OUT' must not be one of the inputs"),
        (["bert", "."], "argument 'OUT' must be a new folder or a model's folder, got '.'"),
        (["bert", "absent/out"], "folder 'absent' does not exist"),
        (["bert", "out", "--to", "native"], "argument '--to' must be crammed_bert, crammed"),
        (["bert", "out", "--from", "ultrafastbert"], "argument '--from' must be crammed_bert, "),
        (["bert", "out", "--from", "crammed_bert_decoder"], "'--from' must be crammed_bert, as IN"),
        (["bert", "out", "--depth", "2"], "argument '--depth' must be left out"),
        (["judge", "out", "--to", "crammed_bert_decoder"], "crammed_bert for a classifier"),
    ],
)
def test_convert_refuses(argv, message, command, models, files):
    name, out, *options = argv
    before = sorted(os.listdir())
    out = out.format(bert=models["bert"])
    assert_one_line(command("convert", models[name], out, *options), message)
    assert sorted(os.listdir()) == before


def test_convert_opens_no_pickle(command, models, tmp_path):
    command("convert", models["bert"], tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").rename(tmp_path / "a" / "pytorch_model.bin")
    result = command("convert", tmp_path / "a", tmp_path / "b")
    assert_one_line(result, "'pytorch_model.bin', which is a Python pickle")
    assert not (tmp_path / "b").exists()
