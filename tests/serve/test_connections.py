"""Connections: clients that are slow, send without end, or do not read."""

from __future__ import annotations

import contextlib
import json
import socket

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.serve import ServeSettings
from tests.serve.support import serving, tensor, wait_until


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
