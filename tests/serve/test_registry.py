"""The models of a server: opened, warmed up, reloaded."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.serve import ServeSettings, app
from tests.serve.support import MANY, Client, infer, serving, tensor, wait_until


def test_it_is_ready_when_kernels_are_warm(served, monkeypatch):
    from fffcpu.serve.models import LayerModel

    go_on = threading.Event()
    monkeypatch.setattr(LayerModel, "warm", lambda _: go_on.wait(60))
    with serving({"layer": served["layer"]}, wait=False) as (port, application):
        client = Client(port)
        assert client.json("GET", "/v2/health/live") == (200, {"live": True})
        assert client.json("GET", "/v2/health/ready") == (503, {"ready": False})
        status, answer = client.json("POST", "/v2/models/layer/infer", MANY)
        assert status == 503
        assert answer["error"].startswith("the server is not ready yet")
        go_on.set()
        wait_until(lambda: application.server.registry.ready)
        assert client.json("GET", "/v2/health/ready") == (200, {"ready": True})
        client.close()


def test_a_server_that_ends_warms_up_no_further_model(served, monkeypatch):
    from fffcpu.serve.models import LayerModel

    begun, go_on, warmed, calls = threading.Event(), threading.Event(), [], []

    def warm(model):
        warmed.append(model.name)
        begun.set()
        go_on.wait(60)

    def unfinished():
        calls.append(list(warmed))
        go_on.set()

    monkeypatch.setattr(LayerModel, "warm", warm)
    two = {"first": served["layer"], "second": served["layer"]}
    with serving(two, wait=False) as (_, application):
        application.on_unfinished = unfinished
        begun.wait(60)
    assert calls == [["first"]]
    assert warmed == ["first"]
    assert not application.server.registry.ready


def test_a_server_that_is_ready_ends_as_always(served):
    with serving({"layer": served["layer"]}) as (port, application):
        application.on_unfinished = lambda: pytest.fail("nothing is unfinished")
        with Client(port) as client:
            infer(client, "layer", *MANY["inputs"])


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


def test_a_warning_tells_that_a_model_takes_something_else_than_before(tmp_path, caplog):
    path = tmp_path / "layer.safetensors"
    FastFeedForward(4, 2, 1, rng=0).save(path)
    with (
        serving({"layer": path}, ServeSettings(reload=True)) as (port, _),
        Client(port) as client,
    ):
        for inputs, outputs in ((4, 2), (5, 2), (5, 3)):
            FastFeedForward(inputs, outputs, 1, rng=1).save(path)
            assert client.json("POST", "/v2/repository/models/layer/load", {})[0] == 200
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "model 'layer' has other inputs than before: x FP32 [-1, 5] instead of x FP32 [-1, 4]",
        "model 'layer' has other outputs than before: y FP32 [-1, 3] instead of y FP32 [-1, 2]",
    ]


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
