"""A server in a thread of this process, models for it, and clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time

import numpy as np

from fffcpu import FastFeedForward, Predictor, Schema
from fffcpu.inference.pipelines import FillMask, TextClassifier, TextEmbedder
from fffcpu.models import (
    FastBertConfig,
    FastBertEncoder,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from fffcpu.serve import ServeSettings, app
from fffcpu.text import Tokenizer

LONG = " ".join(["cat"] * 20)
"""A text of too many tokens for the models of texts."""

WORDS = ["the", "a", "cat", "dog", "rose", "sat", "ran", "on", "under", "mat", "tree"]
TOKENIZER = Tokenizer.train([" ".join(WORDS)] * 2, vocabulary=90)


def config(**more):
    return FastBertConfig(96, 16, 2, 2, feedforward_size=2, depth=3, positions=12, **more)


def models():
    """One model of each kind."""
    species = Schema("classification", ("cat", "dog", "owl"), ("a", "b", "c", "d"))
    price = Schema("regression", (), None, ("price",), (1.5,))
    judge = FastBertForSequenceClassification(config(classes=2, labels=("bad", "good")), rng=0)
    return {
        "layer": FastFeedForward(64, 48, 5, trees=2, rng=0),
        "species": Predictor(FastFeedForward(4, 3, 2, rng=1), species),
        "price": Predictor(FastFeedForward(4, 1, 2, rng=2), price),
        "words": FillMask(FastBertForMaskedLM(config(), rng=0), TOKENIZER),
        "judge": TextClassifier(judge, TOKENIZER),
        "encoder": TextEmbedder(FastBertEncoder(config(), rng=0), TOKENIZER),
    }


class Client:
    """One connection to a server."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method, path, body=None, **headers):
        """Return the status, the headers and the body of an answer."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, names)
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def json(self, method, path, body=None, **headers):
        """Return the status and the JSON of an answer."""
        status, _, content = self.ask(method, path, body, **headers)
        return status, json.loads(content)

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@contextlib.contextmanager
def serving(served, settings=None, *, wait=True):
    """Serve models in a thread; gives the port and the application."""
    import uvicorn

    from fffcpu.serve.running import GuardedProtocol

    application = app(served, settings or ServeSettings())
    how = {"http": GuardedProtocol, "port": 0, "log_config": None, "access_log": False}
    server = uvicorn.Server(uvicorn.Config(application, **how))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        while wait and not application.server.registry.ready:
            assert thread.is_alive()
            time.sleep(0.005)
        yield port, application
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def tensor(name, array, datatype=None):
    """An input, as JSON."""
    array = np.asarray(array)
    kinds = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "bool": "BOOL"}
    datatype = datatype or kinds.get(array.dtype.name, "BYTES")
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
    }


def outputs_of(answer):
    """The outputs of a JSON answer, as arrays by name."""
    kinds = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "BYTES": object}
    return {
        output["name"]: np.array(output["data"], kinds[output["datatype"]]).reshape(output["shape"])
        for output in answer["outputs"]
    }


def infer(client, model, *tensors, **more):
    """The outputs of a request in JSON."""
    status, answer = client.json(
        "POST", f"/v2/models/{model}/infer", {"inputs": list(tensors), **more}
    )
    assert status == 200, answer
    return outputs_of(answer)


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


MANY = {"inputs": [tensor("x", np.ones((20, 64), np.float32))]}
"""A request of some rows to the layer."""
