"""Pipelines: what they say of a text is what the model says of it alone, whatever comes with it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from fffcpu import kernels
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError
from fffcpu.inference import pipelines
from fffcpu.inference.pipelines import (
    FillMask,
    TextClassifier,
    TextEmbedder,
    default_model_folder,
    open_pipeline,
)
from fffcpu.models import (
    BertConfig,
    BertEncoder,
    BertForMaskedLM,
    BertForSequenceClassification,
    FastBertConfig,
    FastBertEncoder,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
    data_parallel,
)
from fffcpu.text import Tokenizer

WORDS = ["the", "a", "cat", "dog", "rose", "sat", "ran", "on", "under", "mat", "tree"]
TOKENIZER = Tokenizer.train([" ".join(WORDS)] * 2, vocabulary=90)
POSITIONS = 12

RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, n)) for n in RNG.integers(0, 16, 60)]
"""Texts of all lengths, from empty to too long."""


def config(**more):
    # In float64, so that products in batches of other shapes round to the same routes.
    size = {"feedforward_size": 2, "depth": 3, "positions": POSITIONS, "dtype": "float64"}
    return FastBertConfig(96, 16, 2, 2, **size, **more, initial_std=0.3, head_width=8)


def classifier(**more):
    return TextClassifier(FastBertForSequenceClassification(config(**more), rng=0), TOKENIZER)


FILL_MASK = FillMask(FastBertForMaskedLM(config(), rng=0), TOKENIZER)
EMBEDDER = TextEmbedder(FastBertEncoder(config(), rng=0), TOKENIZER)


# --- Windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "method"),
    [
        (FILL_MASK.stream, FILL_MASK.fill),
        (classifier(classes=2).stream, classifier(classes=2).probabilities),
        (EMBEDDER.stream, EMBEDDER.embed),
    ],
)
def test_a_stream_holds_a_window_of_texts_and_no_more(stream, method, monkeypatch):
    monkeypatch.setattr(pipelines, "WINDOW", 8)
    taken = []

    def texts():
        for number, text in enumerate(TEXTS):
            taken.append(number)
            yield text

    results = []
    for number, result in enumerate(stream(texts())):
        results.append(result)
        assert len(taken) <= (number // 8 + 1) * 8
    whole = method(TEXTS)
    assert len(results) == len(whole) == len(TEXTS)
    if isinstance(whole, np.ndarray):
        np.testing.assert_allclose(results, whole, rtol=1e-9, atol=1e-12)


def test_long_texts_close_a_window():
    texts = ["x" * pipelines.WINDOW_CHARACTERS, "y", "z"]
    assert [len(window) for window in pipelines._windows(texts)] == [1, 2]


# --- Fill-mask ------------------------------------------------------------------------------------


def chances(text):
    """Probabilities (S, tokens) of every position of a text."""
    (ids,) = TOKENIZER.encode([text], special=True)
    logits = FILL_MASK.model([ids])[0, :, : TOKENIZER.vocabulary]
    found = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return ids, found / found.sum(axis=-1, keepdims=True)


def test_masks_are_filled_with_the_likeliest_tokens():
    masked = [
        "the [MASK] sat on the [MASK]",
        "[MASK]",
        "a cat",
        "[MASK] ran under a tree on the mat",
    ]
    found = FILL_MASK.fill(masked, top=4)
    assert [len(masks) for masks in found] == [2, 1, 0, 1]
    for text, masks in zip(masked, found, strict=True):
        ids, expected = chances(text)
        rows = expected[np.array(ids) == TOKENIZER.mask_id]
        for guesses, row in zip(masks, rows, strict=True):
            best = [k for k in np.argsort(-row) if k in TOKENIZER.word_ids][:4]
            assert [guess.token for guess in guesses] == [TOKENIZER.token(k) for k in best]
            np.testing.assert_allclose([guess.probability for guess in guesses], row[best])


def test_probabilities_are_of_tokens_that_there_are():
    words = len(TOKENIZER.word_ids)
    guesses = FILL_MASK.fill(["[MASK]"], top=words)[0][0]
    _, (_, row, _) = chances("[MASK]")
    special = sum(row[k] for k in range(TOKENIZER.vocabulary) if k not in TOKENIZER.word_ids)
    assert sum(guess.probability for guess in guesses) == pytest.approx(1 - special)
    with pytest.raises(ArgumentError, match=f"'top' must be .* 1 to {words}, got"):
        FILL_MASK.fill(["[MASK]"], top=words + 1)


def test_special_tokens_and_unused_numbers_are_no_guesses():
    definition = json.loads(TOKENIZER._definition)
    unused = definition["model"]["vocab"].pop("cat")
    definition["model"]["vocab"]["last"] = TOKENIZER.vocabulary + 10
    tokenizer = Tokenizer(json.dumps(definition))
    model = FastBertForMaskedLM(dataclasses.replace(config(), vocabulary=200), rng=0)
    words = model.params["encoder.embedding.words"]
    model.params["encoder.final_norm.bias"][...] = 9 * words[[*range(5), unused]].sum(axis=0)
    likeliest = model(tokenizer.encode(["[MASK]"], special=True))[0, 1].argmax()
    assert likeliest in (*range(5), unused)
    guesses = FillMask(model, tokenizer).fill(["[MASK]"], top=len(tokenizer.word_ids))[0][0]
    assert {guess.token for guess in guesses} == set(definition["model"]["vocab"]) - {
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    }


def test_a_mask_that_would_be_cut_off_is_an_error():
    words = ["cat"] * (POSITIONS - 3)
    (last,) = FILL_MASK.fill([" ".join([*words, "[MASK]"])])
    (cut,) = FILL_MASK.fill([" ".join([*words, "[MASK]", "sat", "on"])])
    assert len(last) == len(cut) == 1
    assert last == cut
    with pytest.raises(ArgumentError, match="must have every mask among the first 10 tokens of a"):
        FILL_MASK.fill([" ".join([*words, "sat", "[MASK]"])])


# --- Classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooler", ["zero_index", "avg", "max", "lse"])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_text_is_judged_as_it_is_alone(pooler, classes):
    judge = classifier(classes=classes, pooler=pooler)
    found = judge.probabilities(TEXTS)
    assert found.shape == (len(TEXTS), classes)
    for text, row in zip(TEXTS, found, strict=True):
        logits = judge.model(TOKENIZER.encode([text], POSITIONS))[0]
        expected = np.exp(logits) / np.exp(logits).sum() if classes > 1 else logits
        np.testing.assert_allclose(row, expected, rtol=1e-8)
    assert len(np.unique(found[:, 0].round(9))) > 30


def test_labels_are_names_or_numbers():
    assert classifier(classes=2, labels=("no", "yes")).labels == ("no", "yes")
    assert classifier(classes=3).labels == ("0", "1", "2")
    assert classifier(classes=1).labels == ()
    assert classifier(classes=2).probabilities([]).shape == (0, 2)


# --- Vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "start"])
def test_vectors_are_of_the_tokens_alone(pooling, normalize):
    found = EMBEDDER.embed(TEXTS, pooling, normalize=normalize)
    assert found.shape == (len(TEXTS), 16)
    for text, vector in zip(TEXTS, found, strict=True):
        hidden = EMBEDDER.model(TOKENIZER.encode([text], POSITIONS))[0]
        expected = hidden.mean(axis=0) if pooling == "mean" else hidden[0]
        length = np.linalg.norm(expected) if normalize else 1
        np.testing.assert_allclose(vector, expected / length, rtol=1e-8, atol=1e-10)


def narrow(**more):
    return dataclasses.replace(config(**more), dtype="float32")


def wide_bert():
    # Wide enough for several panels of a product, long enough for several blocks of rows.
    return BertConfig(96, 72, 2, 2, positions=60, feedforward="ff", feedforward_size=100)


LONG_TEXTS = [*TEXTS, *(" ".join(RNG.choice(WORDS, n)) for n in RNG.integers(16, 60, 12))]
PIPELINES = {
    "fill": lambda: FillMask(FastBertForMaskedLM(narrow(), rng=0), TOKENIZER).fill,
    "classes": lambda: (
        TextClassifier(
            FastBertForSequenceClassification(narrow(classes=3), rng=0), TOKENIZER
        ).probabilities
    ),
    "embed": lambda: TextEmbedder(FastBertEncoder(narrow(), rng=0), TOKENIZER).embed,
    "embed a BERT": lambda: TextEmbedder(BertEncoder(wide_bert(), rng=0), TOKENIZER).embed,
    "embed in int8": lambda: (
        TextEmbedder(BertEncoder(wide_bert(), rng=0).quantize("int8"), TOKENIZER).embed
    ),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", PIPELINES)
def test_a_text_has_the_same_bits_in_any_company(kind, threads, monkeypatch):
    method, normalize = PIPELINES[kind](), {}
    texts = [text for text in LONG_TEXTS if len(text.split()) < POSITIONS or "BERT" in kind]
    if kind == "fill":
        texts = [text.replace("cat", "[MASK]", 1) for text in texts]
    if kind.startswith("embed a"):
        normalize = {"normalize": True}
    alone = [method([text], **normalize)[0] for text in texts]
    monkeypatch.setattr(data_parallel, "get_num_threads", lambda: threads)
    monkeypatch.setattr(pipelines, "LEAST_TOKENS", 16)
    shards = []

    def run_shards(function, own):
        shards.extend(own)
        return data_parallel.run_shards(function, own)

    monkeypatch.setattr(pipelines, "run_shards", run_shards)
    together = method(texts, **normalize)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)
    compiled = kernels.selection().compiles
    assert len(shards) == (threads if threads == 2 or not compiled else 0)
    assert len(method([])) == 0


def test_an_empty_text_has_a_vector_and_no_text_has_none():
    assert np.isfinite(EMBEDDER.embed([""])).all()
    none = EMBEDDER.embed([])
    assert none.shape == (0, 16)
    assert none.dtype == np.float64


def test_a_vector_of_length_0_stays():
    assert pipelines._normalized(np.zeros((1, 3))).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pooling": "max"}, ArgumentError, "'pooling' must be mean or start, got 'max'"),
        ({"normalize": 1}, ArgumentTypeError, "'normalize' must be True or False"),
    ],
)
def test_wrong_options_are_errors(options, error, message):
    with pytest.raises(error, match=message):
        EMBEDDER.stream([], **options)


# --- Arguments and folders ------------------------------------------------------------------------


@pytest.mark.parametrize("texts", ["a cat", [b"a cat"], ["a cat", None]])
def test_what_is_no_text_is_an_error(texts):
    with pytest.raises(ArgumentTypeError, match="argument 'texts' must hold texts, got"):
        EMBEDDER.embed(texts)


def test_models_and_tokenizers_must_fit():
    small = FastBertEncoder(FastBertConfig(20, 4, 1, 1, feedforward_size=1), rng=0)
    with pytest.raises(
        ArgumentError, match="'tokenizer' must have at most 20 tokens, like the model"
    ):
        TextEmbedder(small, TOKENIZER)
    with pytest.raises(
        ArgumentTypeError, match="must be a FastBertForMaskedLM or a BertForMaskedLM, got"
    ):
        FillMask(small, TOKENIZER)
    with pytest.raises(ArgumentTypeError, match="'tokenizer' must be a Tokenizer, got None"):
        TextEmbedder(small, None)


def test_a_folder_holds_all_that_is_needed(tmp_path):
    judge = FastBertForSequenceClassification(config(classes=2, labels=("no", "yes")), rng=0)
    judge.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        TextClassifier.from_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    opened = TextClassifier.from_pretrained(tmp_path)
    assert opened.labels == ("no", "yes")
    assert "TextClassifier" in repr(opened)
    expected = TextClassifier(judge, TOKENIZER).probabilities(TEXTS[:9])
    np.testing.assert_allclose(opened.probabilities(TEXTS[:9]), expected, atol=1e-3)
    assert TextEmbedder.from_pretrained(tmp_path).embed(["a"]).shape == (1, 16)
    with pytest.raises(CheckpointError, match="holds a classifier"):
        FillMask.from_pretrained(tmp_path)


def test_a_folder_with_the_tokenizer_of_another_model_is_an_error(tmp_path):
    small = FastBertConfig(20, 4, 1, 1, feedforward_size=1)
    FastBertEncoder(small, rng=0).save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"folder '.*': argument 'tokenizer' must have at"):
        TextEmbedder.from_pretrained(tmp_path)


def test_the_packages_own_model(tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "files", lambda package: tmp_path)
    with pytest.raises(
        CheckpointError, match="this installation of fffcpu has no model of its own"
    ):
        default_model_folder()
    FILL_MASK.model.save_pretrained(tmp_path / "fastbert")
    assert default_model_folder() == tmp_path / "fastbert"


# --- BERT -----------------------------------------------------------------------------------------


def bert(**more):
    return BertEncoder(
        BertConfig(96, 16, 2, 2, feedforward_size=9, positions=POSITIONS, dtype="float64", **more),
        rng=0,
    )


def test_a_bert_pools_as_its_config_says():
    plain = TextEmbedder(bert(), TOKENIZER)
    own = TextEmbedder(bert(pooling="start", normalize=True), TOKENIZER)
    expected = plain.embed(TEXTS, "start", normalize=True)
    np.testing.assert_allclose(own.embed(TEXTS), expected, atol=1e-12)
    np.testing.assert_allclose(own.embed(TEXTS, "mean", normalize=False), plain.embed(TEXTS))
    assert np.abs(plain.embed(TEXTS) - expected).max() > 0.1


def test_a_bert_cuts_texts_where_its_config_says():
    embedder = TextEmbedder(bert(cut=5), TOKENIZER)
    results = embedder.stream(["a cat sat on the mat", "a cat"])
    vectors = list(results)
    assert results.cut == 1
    row = TOKENIZER.encode(["a cat sat on the mat"], 5)
    np.testing.assert_allclose(vectors[0], embedder.model(row)[0].mean(axis=0))


def test_an_embedder_opens_either_encoder(tmp_path):
    for model in (bert(normalize=True), FastBertEncoder(config(), rng=0)):
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder, files={"tokenizer.json": TOKENIZER.to_json()})
        found = TextEmbedder.from_pretrained(folder)
        assert type(found.model) is type(model)
        np.testing.assert_allclose(
            found.embed(TEXTS), TextEmbedder(model, TOKENIZER).embed(TEXTS), atol=1e-4
        )
    with pytest.raises(CheckpointError, match=r"missing 'cls\.predictions"):
        FillMask.from_pretrained(tmp_path / "BertEncoder")


def bert_config(**more):
    return BertConfig(96, 16, 2, 2, feedforward_size=9, positions=POSITIONS, **more)


@pytest.mark.parametrize(
    ("pipeline", "model"),
    [
        (FillMask, BertForMaskedLM(bert_config(initial_std=0.3), rng=0)),
        (TextClassifier, BertForSequenceClassification(bert_config(classes=3), rng=0)),
        (TextEmbedder, BertEncoder(bert_config(), rng=0)),
        (FillMask, FILL_MASK.model),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_folder_decides_the_pipeline(pipeline, model, tmp_path):
    model.save_pretrained(tmp_path, files={"tokenizer.json": TOKENIZER.to_json()})
    found = open_pipeline(tmp_path)
    assert type(found) is pipeline
    assert type(found.model) is type(model)


def test_a_bert_fills_masks():
    model = BertForMaskedLM(bert_config(initial_std=0.3), rng=0)
    ((guesses,),) = FillMask(model, TOKENIZER).fill(["a [MASK]"], top=3)
    ids = np.array(TOKENIZER.encode(["a [MASK]"], special=True))
    logits = model(ids)[0, ids[0].tolist().index(TOKENIZER.mask_id)][: TOKENIZER.vocabulary]
    chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = sorted(TOKENIZER.word_ids, key=lambda k: -chances[k])[:3]
    assert [guess.token for guess in guesses] == [TOKENIZER.token(int(k)) for k in best]
    np.testing.assert_allclose([guess.probability for guess in guesses], chances[best], rtol=1e-4)


def test_a_bert_classifies():
    model = BertForSequenceClassification(bert_config(classes=2, labels=("no", "yes")), rng=0)
    judge = TextClassifier(model, TOKENIZER)
    assert judge.labels == ("no", "yes")
    ids = np.array(TOKENIZER.encode(["a cat"]))
    chances = np.exp(model(ids)) / np.exp(model(ids)).sum()
    np.testing.assert_allclose(judge.probabilities(["a cat", "a dog"])[:1], chances, rtol=1e-4)
