"""The application over HTTP: the protocol, errors, queues, keys, figures."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import threading

import numpy as np
import pytest

from fffcpu.serve import ServeSettings, batching
from tests.serve.support import MANY, Client, serving, tensor, wait_until

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 64)).astype(np.float32)


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


def test_models_are_listed(client, served):
    status, answer = client.json("GET", "/v1/models")
    assert status == 200
    assert [model["id"] for model in answer["data"]] == list(served)
    assert client.json("GET", "/v1/models/layer")[1]["object"] == "model"


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


def asking(pool, port, body=MANY):
    def ask():
        client = Client(port)
        try:
            return client.json("POST", "/v2/models/layer/infer", body)
        finally:
            client.close()

    return pool.submit(ask)


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


def test_a_key_is_needed_but_for_health(served):
    settings = ServeSettings(keys=("first", "second"))
    with serving({"layer": served["layer"]}, settings) as (port, _):
        client = Client(port)
        assert client.ask("GET", "/v2/health/live")[0] == 200
        assert client.ask("GET", "/v2/health/ready")[0] == 200
        assert client.ask("GET", "/")[0] == 200  # the page asks for the key
        for path in ("/v2", "/metrics", "/v1/models", "/page/models"):
            for headers, message in (
                ({}, "a key is needed"),
                ({"authorization": "Basic first"}, "a key is needed"),
                ({"authorization": "Bearer third"}, "is not one of the server's"),
            ):
                status, _, content = client.ask("GET", path, **headers)
                assert (status, message in content.decode()) == (401, True)
            for key in settings.keys:
                assert client.ask("GET", path, authorization=f"Bearer {key}")[0] == 200
        client.close()
