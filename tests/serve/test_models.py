"""What models answer: the bits of a local call, in any company, or what is wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fffcpu import DenseFeedForward, FastFeedForward, Predictor, Schema, kernels
from fffcpu.inference.pipelines import FillMask, TextClassifier, TextEmbedder
from fffcpu.models import (
    BertConfig,
    BertEncoder,
    BertForMaskedLM,
    BertForSequenceClassification,
)
from fffcpu.serve import models
from fffcpu.serve.tensors import InferRequest
from tests.serve.support import LONG, TOKENIZER, Client, infer, serving, tensor

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 64)).astype(np.float32)
ROWS = RNG.standard_normal((5, 4))


def test_a_layer_answers_with_its_own_bits(client, served):
    found = infer(client, "layer", tensor("x", X))
    assert found["y"].tobytes() == served["layer"](X).tobytes()


def test_a_dense_layer_keeps_its_bits_in_any_company():
    dense, x = DenseFeedForward(64, 48, 100, rng=0), X[:1]
    model = models.served(dense, 1 << 20)
    jobs = [model.prepare(InferRequest(None, {"x": x}, None, {})) for _ in range(2)]
    together = jobs[0].key == jobs[1].key
    assert together == kernels.selection().compiles
    for found in model.compute(jobs if together else jobs[:1], lambda: True):
        assert found["y"].tobytes() == dense(x).tobytes()


def test_columns_may_have_any_name():
    schema = Schema("regression", (), ("x", "y"), None, (0.0,))
    predictor = Predictor(FastFeedForward(2, 1, 2, rng=0), schema)
    rows = RNG.standard_normal((3, 2)).astype(np.float32)
    with serving({"own": predictor}) as (port, _), Client(port) as client:
        for tensors in ([tensor("x", rows)], [tensor(n, rows[:, k]) for k, n in enumerate("xy")]):
            found = infer(client, "own", *tensors)["prediction"]
            assert np.array_equal(found, predictor.predict(rows))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_rows_may_have_any_type_of_numbers(dtype, client, served):
    x = (10 * X).astype(dtype)
    assert np.array_equal(infer(client, "layer", tensor("x", x))["y"], served["layer"](x))


def test_no_rows_have_no_answers(client):
    assert infer(client, "layer", tensor("x", X[:0]))["y"].shape == (0, 48)
    assert infer(client, "judge", tensor("text", [], "BYTES"))["probabilities"].shape == (0, 2)


def test_a_predictor_answers_with_labels_and_probabilities(client, served):
    found = infer(client, "species", tensor("x", ROWS))
    assert found["label"].tolist() == served["species"].predict(ROWS).tolist()
    assert np.array_equal(found["probabilities"], served["species"].probabilities(ROWS))
    columns = [tensor(name, ROWS[:, k]) for k, name in enumerate("abcd")]
    by_column = infer(client, "species", *columns[::-1])
    assert np.array_equal(by_column["probabilities"], found["probabilities"])
    price = infer(client, "price", tensor("x", ROWS))["prediction"]
    assert np.array_equal(price, served["price"].predict(ROWS))


def test_only_what_is_asked_for_comes_in_its_order(client):
    for names in (["probabilities"], ["probabilities", "label"]):
        outputs = [{"name": name} for name in names]
        assert list(infer(client, "species", tensor("x", ROWS), outputs=outputs)) == names


def test_texts_have_the_bits_that_they_have_alone(client, served):
    texts = ["the cat sat", "a dog", "a rose under the tree"]
    found = infer(client, "encoder", tensor("text", texts))["embedding"]
    for text, vector in zip(texts, found, strict=True):
        assert vector.tobytes() == served["encoder"].embed([text])[0].tobytes()
    both = infer(client, "judge", tensor("text", texts))
    chances = served["judge"].probabilities(texts)
    np.testing.assert_allclose(both["probabilities"], chances, atol=1e-5)
    labels = np.array(["bad", "good"])[both["probabilities"].argmax(axis=1)]
    assert both["label"].tolist() == labels.tolist()


def test_masks_are_filled(client, served):
    texts = ["the [MASK] sat on the [MASK]", "a [MASK] [MASK]"]
    found = infer(client, "words", tensor("text", texts), parameters={"top": 2})
    assert found["tokens"].shape == found["probabilities"].shape == (2, 2, 2)
    for text, tokens in zip(texts, found["tokens"], strict=True):
        guesses = served["words"].fill([text], top=2)[0]
        assert tokens.tolist() == [[guess.token for guess in mask] for mask in guesses]


def test_every_model_of_texts_gives_an_embedding(client, served):
    outputs = [{"name": "embedding"}]
    for name in ("words", "judge", "encoder"):
        found = infer(client, name, tensor("text", ["a cat"]), outputs=outputs)
        assert found["embedding"].shape == (1, 16)
    options = {"pooling": "start", "normalize": True}
    found = infer(client, "encoder", tensor("text", ["a cat"]), parameters=options)["embedding"]
    assert np.array_equal(found, served["encoder"].embed(["a cat"], "start", normalize=True))


def test_a_long_text_is_an_error_unless_it_may_be_cut(client, served):
    body = {"inputs": [tensor("text", [LONG])]}
    status, answer = client.json("POST", "/v2/models/encoder/infer", body)
    assert status == 413
    assert "texts may have 12 tokens, got one of 22" in answer["error"]
    found = infer(client, "encoder", tensor("text", [LONG]), parameters={"truncate": True})
    assert np.array_equal(found["embedding"], served["encoder"].embed([LONG]))


@pytest.mark.parametrize(
    ("model", "inputs", "more", "message"),
    [
        ("layer", [tensor("x", X[:, :5])], {}, r"numbers of shape \(rows, 64\), got FP32"),
        ("layer", [tensor("x", X[0])], {}, r"numbers of shape \(rows, 64\)"),
        ("layer", [tensor("z", X)], {}, "the only input is 'x', got 'z'"),
        ("layer", [tensor("x", X), tensor("z", X)], {}, "the only input is 'x', got 'x', 'z'"),
        ("layer", [tensor("x", X > 0)], {}, "must be numbers"),
        ("layer", [tensor("x", X.astype(str))], {}, "must be numbers"),
        ("layer", [tensor("x", X)], {"outputs": [{"name": "z"}]}, "the outputs are y, got 'z'"),
        ("species", [tensor("z", ROWS)], {}, "the inputs are x or a, b, c, d, got z"),
        ("species", [tensor("a", ROWS[:, 0])], {}, "a, b, c, d; missing: b, c, d$"),
        (
            "species",
            [tensor(name, ROWS[:, 0]) for name in "abcD"],
            {},
            "a, b, c, d; missing: d; unknown: D$",
        ),
        (
            "species",
            [tensor(name, ROWS[: k + 1, 0]) for k, name in enumerate("abcd")],
            {},
            "one shape",
        ),
        ("species", [tensor("x", 1e300 * ROWS)], {}, "finite numbers that float32"),
        ("judge", [tensor("text", [1.0])], {}, "must be BYTES"),
        ("judge", [tensor("text", [["a"]])], {}, "must be BYTES"),
        ("words", [tensor("text", ["a cat"])], {}, "as many"),
        ("words", [tensor("text", ["[MASK]", "[MASK] [MASK]"])], {}, "as many"),
        ("words", [tensor("text", ["[MASK]"])], {"parameters": {"top": 0}}, "'top' must be 1 to"),
        (
            "words",
            [tensor("text", ["[MASK]"])],
            {"parameters": {"top": 99}},
            "'top' must be at",
        ),
        ("judge", [tensor("text", ["a"])], {"parameters": {"pooling": []}}, "'pooling' must be"),
        ("judge", [tensor("text", ["a"])], {"parameters": {"truncate": 1}}, "'truncate' must be"),
        (
            "judge",
            [tensor("text", ["a"])],
            {"outputs": [{"name": "label"}, {"name": "embedding"}]},
            "ask for 'embedding' alone",
        ),
    ],
)
def test_what_a_model_cannot_take_is_named(model, inputs, more, message, client):
    status, answer = client.json("POST", f"/v2/models/{model}/infer", {"inputs": inputs, **more})
    assert status == 400
    assert re.search(message, answer["error"]), answer


def test_the_folder_of_a_bert_gives_embeddings(tmp_path):
    config = BertConfig(96, 16, 1, 2, feedforward_size=9, positions=12, normalize=True)
    model = BertEncoder(config, rng=0)
    model.save_pretrained(tmp_path, files={"tokenizer.json": TOKENIZER.to_json()})
    expected = TextEmbedder(model, TOKENIZER).embed(["a cat"])
    with serving({"bert": tmp_path}) as (port, _):
        client = Client(port)
        found = infer(client, "bert", tensor("text", ["a cat"]))
        assert np.array_equal(found["embedding"], expected)
        body = {"input": "a cat", "model": "bert"}
        status, answer = client.json("POST", "/v1/embeddings", body)
        assert status == 200
        assert np.array_equal(np.float32(answer["data"][0]["embedding"]), expected[0])
        client.close()


def test_folders_of_berts_with_heads_give_what_their_pipelines_give(tmp_path):
    sizes = {"feedforward": "fff", "feedforward_size": 2, "depth": 2, "positions": 12}
    judge = BertConfig(96, 16, 1, 2, classes=2, labels=("bad", "good"), **sizes)
    models = {
        "judge": BertForSequenceClassification(judge, rng=0),
        "words": BertForMaskedLM(BertConfig(96, 16, 1, 2, **sizes), rng=0),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name, files={"tokenizer.json": TOKENIZER.to_json()})
    with serving({name: tmp_path / name for name in models}) as (port, _):
        client = Client(port)
        judged = infer(client, "judge", tensor("text", ["a cat"]))
        filled = infer(client, "words", tensor("text", ["a [MASK]"]))
        client.close()
    classifier = TextClassifier(models["judge"], TOKENIZER)
    expected = classifier.probabilities(["a cat"])
    np.testing.assert_array_equal(judged["probabilities"], expected)
    assert judged["label"].tolist() == [("bad", "good")[expected[0].argmax()]]
    ((guesses,),) = FillMask(models["words"], TOKENIZER).fill(["a [MASK]"])
    assert filled["tokens"].ravel().tolist() == [guess.token for guess in guesses]
