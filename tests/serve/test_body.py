"""Bodies: bounded in size, in time and in what they would give."""

from __future__ import annotations

import socket

import numpy as np

from fffcpu import FastFeedForward
from fffcpu.serve import ServeSettings
from tests.serve.support import Client, serving, tensor


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


def test_a_header_that_comes_twice_is_an_error(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        lines = ["POST /v2/models/layer/infer HTTP/1.1", "host: x", "content-length: 2"]
        lines += 2 * ["inference-header-content-length: 2"]
        connection.sendall("\r\n".join([*lines, "", "{}"]).encode())
        assert b"comes twice" in connection.recv(1 << 16)
