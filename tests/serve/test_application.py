"""The application over HTTP: protocols, errors, bounds, keys, figures."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import re
import socket
import threading
import time

import numpy as np
import pytest

from fffcpu import DenseFeedForward, FastFeedForward, Predictor, Schema
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.serve import ServeSettings, app, batching, models
from fffcpu.serve.tensors import InferRequest
from tests.serve.support import Client, outputs_of, serving, tensor

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 64)).astype(np.float32)
ROWS = RNG.standard_normal((5, 4))


def infer(client, model, *tensors, **more):
    """The outputs of a request in JSON."""
    status, answer = client.json(
        "POST", f"/v2/models/{model}/infer", {"inputs": list(tensors), **more}
    )
    assert status == 200, answer
    return outputs_of(answer)


# --- What models answer ---------------------------------------------------------------------------


def test_a_layer_answers_with_its_own_bits(client, served):
    found = infer(client, "layer", tensor("x", X))
    assert found["y"].tobytes() == served["layer"](X).tobytes()


def test_a_dense_layer_keeps_its_bits_in_any_company():
    dense, x = DenseFeedForward(64, 48, 100, rng=0), X[:1]
    model = models.served(dense, 1 << 20)
    jobs = [model.prepare(InferRequest(None, {"x": x}, None, {})) for _ in range(2)]
    assert jobs[0].key != jobs[1].key
    assert model.compute(jobs[:1], lambda: True)[0]["y"].tobytes() == dense(x).tobytes()


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


LONG = " ".join(["cat"] * 20)


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
        ("species", [tensor("a", ROWS[:, 0])], {}, "the inputs are x, got a"),
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
        ("words", [tensor("text", ["[MASK]"])], {"parameters": {"top": 99}}, "'top' may not"),
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


# --- The protocol ---------------------------------------------------------------------------------


def test_health_and_metadata(client):
    assert client.json("GET", "/v2/health/live") == (200, {"live": True})
    assert client.json("GET", "/v2/health/ready") == (200, {"ready": True})
    status, about = client.json("GET", "/v2")
    assert (status, about["name"]) == (200, "fffcpu")
    assert about["extensions"] == ["binary_tensor_data"]
    assert client.json("GET", "/v2/models/layer/ready") == (200, {"name": "layer", "ready": True})
    status, about = client.json("GET", "/v2/models/species")
    assert status == 200
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert about["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
    ]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/..%2Fsetup/infer", 404),
        ("GET", "/v1/models/none", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/v2/models/layer/infer", 405),
        ("POST", "/v2/repository/models/layer/load", 403),
    ],
)
def test_what_there_is_not_is_an_error_in_json(method, path, status, client):
    found, answer = client.json(method, path, {} if method == "POST" else None)
    assert found == status
    assert set(answer) == {"error"}


def test_a_request_has_an_id(client):
    _, headers, _ = client.ask("GET", "/v2")
    assert headers["x-request-id"]
    _, headers, _ = client.ask("GET", "/v2", x_request_id="mine-7")
    assert headers["x-request-id"] == "mine-7"
    _, headers, _ = client.ask("GET", "/v2", x_request_id="two words")
    assert headers["x-request-id"] != "two words"
    status, answer = client.json(
        "POST", "/v2/models/layer/infer", {"id": "8", "inputs": [tensor("x", X)]}
    )
    assert (status, answer["id"]) == (200, "8")


def test_the_one_version_of_a_model_has_paths_of_its_own(client):
    assert client.json("GET", "/v2/models/layer/versions/1")[1]["versions"] == ["1"]
    assert client.json("GET", "/v2/models/layer/versions/1/ready")[0] == 200
    body = {"inputs": [tensor("x", X)]}
    assert client.json("POST", "/v2/models/layer/versions/1/infer", body)[0] == 200
    assert client.json("POST", "/v2/models/layer/versions/2/infer", body)[0] == 404
    _, listed = client.json("POST", "/v2/repository/index", {})
    assert listed[0] == {"name": "layer", "version": "1", "state": "READY"}


def test_a_doubled_id_is_replaced(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        lines = ["GET /v2/health/live HTTP/1.1", "host: x", *2 * ["x-request-id: a"], "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_cut_off_and_its_answer_forgotten(monkeypatch):
    from fffcpu.serve import running

    monkeypatch.setattr(running, "LINGER_SECONDS", 0.2)
    wide = FastFeedForward(1, 5000, 1, rng=0)
    with serving({"wide": wide}, ServeSettings(timeout=0.5)) as (port, application):
        body = json.dumps({"inputs": [tensor("x", np.ones((1500, 1)))]}).encode()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"POST /v2/models/wide/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            wait_until(lambda: application.server.bodies.held > 10_000_000)
            wait_until(lambda: application.server.bodies.held == 0)
            taken = 0
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(1 << 20):
                    taken += len(part)
            assert taken < 50_000_000


@pytest.mark.parametrize(
    "rest",
    [
        b"transfer-encoding: chunked\r\n\r\n0\r\n" + 50_000 * b"t: zzzz\r\n",
        b"transfer-encoding: chunked\r\n\r\n0\r\nt: " + 500_000 * b"z",
        100_000 * b"t: zzzz\r\n",
    ],
)
def test_headers_and_trailers_without_end_are_refused(rest, port):
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n" + rest)
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
        assert answer.startswith(b"HTTP/1.1 431")


def test_pipelined_requests_are_answered_in_order_and_bounded(port):
    one = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(8 * one)
        answer = b""
        while answer.count(b'{"live":true}') < 8:
            answer += connection.recv(1 << 16)
        with contextlib.suppress(ConnectionError):
            connection.sendall(100_000 * one)
            while connection.recv(1 << 20):
                pass


def test_a_header_that_comes_twice_is_an_error(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        lines = ["POST /v2/models/layer/infer HTTP/1.1", "host: x", "content-length: 2"]
        lines += 2 * ["inference-header-content-length: 2"]
        connection.sendall("\r\n".join([*lines, "", "{}"]).encode())
        assert b"comes twice" in connection.recv(1 << 16)


# --- OpenAI's interface ---------------------------------------------------------------------------


def test_embeddings(client, served):
    texts = ["the cat", "a dog"]
    expected = np.stack([served["encoder"].embed([text], normalize=True)[0] for text in texts])
    body = {"input": texts, "model": "encoder"}
    status, answer = client.json("POST", "/v1/embeddings", body)
    assert status == 200
    found = [item["embedding"] for item in answer["data"]]
    assert np.array_equal(np.float32(found), expected)
    assert [item["index"] for item in answer["data"]] == [0, 1]
    tokens = sum(map(len, served["encoder"].tokenizer.encode(texts)))
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    status, answer = client.json(
        "POST", "/v1/embeddings", {**body, "input": texts[0], "encoding_format": "base64"}
    )
    raw = base64.b64decode(answer["data"][0]["embedding"])
    assert raw == expected[0].tobytes()


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": None}, 400, "'model' must be a text"),
        ({"model": "none"}, 404, "no model 'none'"),
        ({"model": "layer"}, 400, "takes no texts"),
        ({"input": [[1, 2], [3]]}, 400, "check_embedding_ctx_length=False"),
        ({"input": [1, 2]}, 400, "check_embedding_ctx_length=False"),
        ({"input": []}, 400, "'input' must be"),
        ({"input": LONG}, 413, "texts may have 12 tokens"),
        ({"encoding_format": "hex"}, 400, "'encoding_format' must be"),
        ({"dimensions": 8}, 400, "'dimensions' must be 16"),
    ],
)
def test_wrong_requests_for_embeddings_are_named(changes, status, message, client):
    body = {"input": "a cat", "model": "encoder", **changes}
    found, answer = client.json("POST", "/v1/embeddings", body)
    assert found == status
    assert message in answer["error"]["message"]


def test_models_are_listed(client, served):
    status, answer = client.json("GET", "/v1/models")
    assert status == 200
    assert [model["id"] for model in answer["data"]] == list(served)
    assert client.json("GET", "/v1/models/layer")[1]["object"] == "model"


# --- Bounds ---------------------------------------------------------------------------------------


def test_bodies_are_bounded(served):
    with serving({"layer": served["layer"]}, ServeSettings(max_body=1000)) as (port, application):
        client = Client(port)
        status, answer = client.json("POST", "/v2/models/layer/infer", b"x" * 1001)
        assert status == 413
        assert "at most 1000 bytes" in answer["error"]
        client.close()
        # Without a length it is refused once it has grown too large.
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(
                b"POST /v2/models/layer/infer HTTP/1.1\r\nhost: x\r\n"
                b"transfer-encoding: chunked\r\n\r\n" + 3 * (b"190\r\n" + 400 * b"x" + b"\r\n")
            )
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")
        assert application.server.bodies.held == 0


def test_a_client_that_reads_only_after_it_has_sent_all_gets_its_refusal(served):
    """To close at once would reset the connection, and the refusal would be lost."""
    with serving({"layer": served["layer"]}, ServeSettings(max_body=1000)) as (port, _):
        size = 40 << 20
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(
                b"POST /v2/models/layer/infer HTTP/1.1\r\nhost: x\r\n"
                b"content-length: %d\r\n\r\n" % size
            )
            for _ in range(40):
                connection.sendall(bytes(1 << 20))
            answer = connection.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 413")
            while more := connection.recv(1 << 16):
                answer += more
        assert b"at most 1000 bytes" in answer


def test_many_rows_that_would_give_too_many_numbers_are_an_error():
    wide = FastFeedForward(1, 5000, 1, rng=0)
    with serving({"wide": wide}, ServeSettings(max_body=10_000)) as (port, _):
        client = Client(port)
        body = {"inputs": [tensor("x", np.zeros((5, 1)))]}
        status, answer = client.json("POST", "/v2/models/wide/infer", body)
        assert status == 413
        assert "at most 2 rows" in answer["error"]
        client.close()


def test_a_compressed_body_is_refused(client):
    status, answer = client.json("POST", "/v2/models/layer/infer", b"x", content_encoding="gzip")
    assert status == 415
    assert "'gzip'" in answer["error"]


def test_a_slow_body_is_refused(served):
    with serving({"layer": served["layer"]}, ServeSettings(timeout=0.2)) as (port, application):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(
                b"POST /v2/models/layer/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"
            )
            answer = connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"within 0.2 s" in answer
        assert application.server.bodies.held == 0


def test_slow_and_endless_headers_are_refused(served, monkeypatch):
    from fffcpu.serve import running

    monkeypatch.setattr(running, "HEADER_SECONDS", 0.2)
    with serving({"layer": served["layer"]}) as (port, _):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /v2 HTTP/1.1\r\nhost")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert connection.recv(1 << 16) == b""
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /v2 HTTP/1.1\r\nhost: " + running.MAX_HEADERS * b"x")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 431")
        # A second request on one connection waits as long.
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 200")
            connection.sendall(b"GET /v2 HTTP/1.1\r\nhost")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")


class Gate:
    """A layer that computes when it may."""

    def __init__(self, layer):
        self.layer, self.open, self.began = layer, threading.Event(), threading.Event()

    def __call__(self, x):
        self.began.set()
        assert self.open.wait(60)
        return self.layer(x)

    def __getattr__(self, name):
        return getattr(self.layer, name)


@pytest.fixture
def threaded(monkeypatch):
    """Let a thread compute every batch."""
    monkeypatch.setattr(batching, "INLINE_WORK", -1)


def gated(application, name):
    """Make a served layer wait."""
    model = application.server.registry.get(name)
    model.layer = Gate(model.layer)
    return model.layer


MANY = {"inputs": [tensor("x", np.ones((20, 64), np.float32))]}


def asking(pool, port, body=MANY):
    def ask():
        client = Client(port)
        try:
            return client.json("POST", "/v2/models/layer/infer", body)
        finally:
            client.close()

    return pool.submit(ask)


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.usefixtures("threaded")
def test_a_full_line_refuses_and_figures_tell(served):
    settings = ServeSettings(queue=2)
    with (
        serving({"layer": served["layer"]}, settings) as (port, application),
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        gate = gated(application, "layer")
        first = asking(pool, port)
        assert gate.began.wait(60)
        waiting = [asking(pool, port) for _ in range(2)]
        wait_until(lambda: len(application.server.batcher.line) == 2)
        client = Client(port)
        status, headers, content = client.ask("POST", "/v2/models/layer/infer", MANY)
        assert status == 429
        assert headers["retry-after"] == "1"
        assert "2 requests wait already" in json.loads(content)["error"]
        gate.open.set()
        assert [answer.result()[0] for answer in (first, *waiting)] == [200] * 3
        _, _, text = client.ask("GET", "/metrics")
        lines = text.decode().splitlines()
        assert 'fffcpu_requests_total{model="layer"} 4.0' in lines
        failed = 'fffcpu_request_failures_total{kind="too_many_requests",model="layer"} 1.0'
        assert failed in lines
        assert 'fffcpu_rows_total{model="layer"} 60.0' in lines
        assert 'fffcpu_batch_requests_sum{model="layer"} 3.0' in lines
        assert 'fffcpu_batch_requests_count{model="layer"} 2.0' in lines
        client.close()


@pytest.mark.usefixtures("threaded")
def test_a_client_that_leaves_is_not_computed(served):
    with (
        serving({"layer": served["layer"]}) as (port, application),
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        gate = gated(application, "layer")
        first = asking(pool, port)
        assert gate.began.wait(60)
        leaver = Client(port)
        content = json.dumps(MANY).encode()
        leaver.connection.request("POST", "/v2/models/layer/infer", content)
        wait_until(lambda: len(application.server.batcher.line) == 1)
        stays = asking(pool, port)
        wait_until(lambda: len(application.server.batcher.line) == 2)
        leaver.close()
        failures = application.server.metrics._failures
        left = failures.labels("layer", "client_left")
        wait_until(lambda: left._value.get() == 1)
        gate.open.set()
        assert [answer.result()[0] for answer in (first, stays)] == [200] * 2
        rows = application.server.metrics.of("layer").rows
        assert rows._value.get() == 40
        assert application.server.bodies.held == 0


@pytest.mark.usefixtures("threaded")
def test_an_answer_that_takes_too_long_is_an_error(served):
    with serving({"layer": served["layer"]}, ServeSettings(timeout=0.3)) as (port, application):
        gate = gated(application, "layer")
        client = Client(port)
        status, answer = client.json("POST", "/v2/models/layer/infer", MANY)
        assert status == 504
        assert "within 0.3 s" in answer["error"]
        gate.open.set()
        client.close()


def test_a_failure_of_the_server_is_told_without_its_insides(served, caplog):
    with serving({"layer": served["layer"]}) as (port, application):
        model = application.server.registry.get("layer")

        def fail(jobs, is_wanted):
            raise RuntimeError("secret")

        model.compute = fail
        client = Client(port)
        status, answer = client.json("POST", "/v2/models/layer/infer", MANY)
        assert (status, answer) == (500, {"error": "the server failed"})
        assert client.json("GET", "/v2/health/live")[0] == 200
        client.close()
    assert "secret" in caplog.text


# --- Keys, readiness, models ----------------------------------------------------------------------


def test_a_key_is_needed_but_for_health(served):
    settings = ServeSettings(keys=("first", "second"))
    with serving({"layer": served["layer"]}, settings) as (port, _):
        client = Client(port)
        assert client.ask("GET", "/v2/health/live")[0] == 200
        assert client.ask("GET", "/v2/health/ready")[0] == 200
        assert client.ask("GET", "/")[0] == 200  # the page asks for the key
        for path in ("/v2", "/metrics", "/v1/models", "/page/models"):
            assert client.ask("GET", path)[0] == 401
            assert client.ask("GET", path, authorization="Bearer third")[0] == 401
            for key in settings.keys:
                assert client.ask("GET", path, authorization=f"Bearer {key}")[0] == 200
        client.close()


def test_it_is_ready_when_kernels_are_warm(served, monkeypatch):
    from fffcpu.serve.models import LayerModel

    go_on = threading.Event()
    monkeypatch.setattr(LayerModel, "warm", lambda _: go_on.wait(60))
    with serving({"layer": served["layer"]}, wait=False) as (port, application):
        client = Client(port)
        assert client.json("GET", "/v2/health/live") == (200, {"live": True})
        assert client.json("GET", "/v2/health/ready") == (503, {"ready": False})
        status, answer = client.json("POST", "/v2/models/layer/infer", MANY)
        assert (status, answer["error"]) == (503, "the server is not ready yet")
        go_on.set()
        wait_until(lambda: application.server.registry.ready)
        assert client.json("GET", "/v2/health/ready") == (200, {"ready": True})
        client.close()


def test_a_model_is_read_anew(tmp_path):
    path = tmp_path / "layer.safetensors"
    layers = [FastFeedForward(4, 2, 1, rng=seed) for seed in range(2)]
    layers[0].save(path)
    x = tensor("x", np.ones((1, 4)))
    with serving({"layer": path}, ServeSettings(reload=True)) as (port, _):
        client = Client(port)
        assert "model_repository" in client.json("GET", "/v2")[1]["extensions"]
        assert np.array_equal(infer(client, "layer", x)["y"], layers[0](np.ones((1, 4))))
        layers[1].save(path)
        assert client.json("POST", "/v2/repository/models/layer/load", {})[0] == 200
        assert np.array_equal(infer(client, "layer", x)["y"], layers[1](np.ones((1, 4))))
        path.write_bytes(b"damaged")
        status, answer = client.json("POST", "/v2/repository/models/layer/load", {})
        assert status == 500
        assert "stays as it was" in answer["error"]
        assert np.array_equal(infer(client, "layer", x)["y"], layers[1](np.ones((1, 4))))
        assert client.json("POST", "/v2/repository/models/none/load", {})[0] == 404
        client.close()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ArgumentTypeError, "must map names to models"),
        ({}, ArgumentError, "at least one model"),
        ({"a b": None}, ArgumentError, "letters, digits"),
        ({"../a": None}, ArgumentError, "letters, digits"),
        ({3: None}, ArgumentError, "letters, digits"),
        ({"a": 3}, ArgumentTypeError, "paths, layers, predictors"),
        ({"a": "/nowhere"}, FileNotFoundError, "nowhere"),
    ],
)
def test_what_is_no_model_is_an_error(given, error, message):
    with pytest.raises(error, match=message):
        app(given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": 0},
        {"max_body": 1.5},
        {"timeout": -1},
        {"timeout": 0},
        {"log": "xml"},
        {"keys": "secret"},
        {"keys": ("",)},
        {"reload": 1},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=next(iter(wrong))):
        ServeSettings(**wrong)
