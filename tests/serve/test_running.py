"""The command: how it starts, what it logs, how it reads models anew and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.serve import running as running_module
from tests.serve.support import Client, outputs_of, tensor

X = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
INPUTS = {"inputs": [tensor("x", X)]}

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGHUP"), reason="signals of this kind are of POSIX systems"
)


class Process:
    """A server in a process of its own."""

    def __init__(self, *options, start=(), **how):
        command = [*start, sys.executable, "-m", "fffcpu", "serve", *options, "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how)
        self.lines = []
        self._read = threading.Thread(target=self._keep)
        self._read.start()
        self.port = int(self.wait_for(r"http://127\.0\.0\.1:(\d+)")[1])

    def _keep(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_for(self, pattern, times=1):
        """Wait until lines of the log match, and return the last match."""
        end = time.monotonic() + 120
        while True:
            found = [m for line in list(self.lines) if (m := re.search(pattern, line))]
            if len(found) >= times:
                return found[times - 1]
            assert time.monotonic() < end, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.01)

    def send(self, number):
        self.process.send_signal(number)

    def end(self):
        """End it, and return the exit status."""
        self.send(signal.SIGTERM)
        status = self.process.wait(60)
        self._read.join()
        return status


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "layer.safetensors"
    FastFeedForward(64, 8, 3, rng=0).save(file)
    return file


@contextlib.contextmanager
def running(*options, **how):
    process = Process(*options, **how)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()
        process._read.join()
        process.process.stderr.close()


class Load(threading.Thread):
    """Clients that ask one request after the other, until the server ends."""

    def __init__(self, port):
        super().__init__()
        self.port, self.answers, self.lost = port, [], 0
        self.start()

    def run(self):
        with Client(self.port) as client:
            while True:
                try:
                    client.connection.request(
                        "POST", "/v2/models/layer/infer", json.dumps(INPUTS).encode()
                    )
                except OSError:
                    return  # the server has ended, or closed the connection: nothing was accepted
                try:
                    answer = client.connection.getresponse()
                    self.answers.append((answer.status, json.loads(answer.read())))
                except (OSError, http.client.HTTPException) as error:
                    # A server may close a connection that rests, just when a request sets out.
                    if not isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                        self.lost += 1
                    return


@pytest.mark.slow
def test_sigterm_under_load_answers_what_was_accepted_and_exits_with_0(path):
    with running(f"layer={path}", "--log", "json") as server:
        server.wait_for('"message": "ready')
        clients = [Load(server.port) for _ in range(4)]
        while sum(len(client.answers) for client in clients) < 50:
            time.sleep(0.01)
        assert server.end() == 0
        for client in clients:
            client.join(60)
        told = [json.loads(line) for line in server.lines if '"path": "/v2/models' in line]
        answers = [answer for client in clients for answer in client.answers]
        assert {status for status, _ in answers} == {200}
        # Every request that the server took up has its answer at the client.
        assert len(told) == len(answers)
        assert sum(client.lost for client in clients) == 0


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("workers", [(), ("--workers", "2", "--threads", "1")])
def test_sigterm_during_a_warm_up_does_not_wait_for_it(workers, path, tmp_path):
    cold = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    with running(f"layer={path}", *workers, env=cold) as server:
        server.wait_for("Application startup complete", times=2 if workers else 1)
        assert server.end() == 0
        assert any("ended during a warm-up" in line for line in server.lines)
        assert not any("ready after" in line for line in server.lines)


@pytest.mark.slow
def test_sighup_reads_models_anew_under_load(path):
    layers = [FastFeedForward(64, 8, 3, rng=seed) for seed in range(2)]
    bits = [layer(X).tobytes() for layer in layers]
    with running(f"layer={path}", "--reload") as server:
        server.wait_for("ready")
        client = Load(server.port)
        while len(client.answers) < 20:
            time.sleep(0.01)
        layers[1].save(path)
        server.send(signal.SIGHUP)
        server.wait_for("was reloaded")
        count = len(client.answers)
        while len(client.answers) < count + 20:
            time.sleep(0.01)
        path.write_bytes(b"damaged")
        server.send(signal.SIGHUP)
        server.wait_for("stays as it was")
        assert server.end() == 0
        client.join(60)
        assert {status for status, _ in client.answers} == {200}
        found = [outputs_of(answer)["y"].tobytes() for _, answer in client.answers]
        assert found[0] == bits[0]
        assert found[-1] == bits[1]
        assert found == sorted(found, key=bits.index)


@pytest.mark.slow
@pytest.mark.thorough
def test_several_workers_share_a_port_and_have_the_keys_out_of_their_environment(path, tmp_path):
    keys, key = tmp_path / "keys", "a-key-of-the-workers"
    keys.write_text(key, encoding="utf-8")
    options = ("--workers", "2", "--threads", "1", "--api-key-file", str(keys))
    with running(f"layer={path}", *options) as server:
        server.wait_for("ready", times=2)
        for word, expected in ((key, 200), (key, 200), (key, 200), ("another", 401)):
            with Client(server.port) as client:
                status, _ = client.json(
                    "POST", "/v2/models/layer/infer", INPUTS, authorization=f"Bearer {word}"
                )
                assert status == expected
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        for child in children.read_text().split() if children.exists() else ():
            assert key not in Path(f"/proc/{child}/environ").read_text(errors="replace")
        assert server.end() == 0


@pytest.mark.slow
@pytest.mark.thorough
def test_the_log_in_json_has_a_line_for_each_request(path, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("one\n\ntwo\n", encoding="utf-8")
    options = (f"layer={path}", "--log", "json", "--api-key-file", str(keys))
    with running(*options) as server:
        server.wait_for('"message": "ready')
        with Client(server.port) as client:
            for key, status in (("two", 200), ("three", 401)):
                found, _ = client.json(
                    "POST",
                    "/v2/models/layer/infer",
                    INPUTS,
                    x_request_id=f"with-{key}",
                    authorization=f"Bearer {key}",
                )
                assert found == status
        assert server.end() == 0
        lines = [json.loads(line) for line in server.lines if '"path"' in line]
        assert [(line["request"], line["status"], line["failure"]) for line in lines] == [
            ("with-two", 200, None),
            ("with-three", 401, "unauthorized"),
        ]
        assert all(line["model"] in ("layer", "") and line["seconds"] > 0 for line in lines)
        assert not any("two" in line and "with-two" not in line for line in server.lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("layer",), "must be NAME=PATH, got 'layer'"),
        (("=path",), "must be NAME=PATH"),
        (("a=/nowhere",), "'/nowhere'"),
        (("a={path.parent}",), "must contain a model of texts, got no 'config.json' in it"),
        (("a={path}", "a={path}"), "different names"),
        (("a b={path}",), "letters, digits"),
        (("a={path}", "--port", "80000"), "'port'"),
        (("a={path}", "--workers", "0"), "'workers'"),
        (("a={path}", "--workers", "2", "--reload"), "'--reload'"),
        (("a={path}", "--queue", "0"), "'queue'"),
        (("a={path}", "--api-key-file", "/dev/null"), "a key per line"),
        (("a={path}", "--host", "192.0.2.1"), "192.0.2.1"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(options, message, path, command, monkeypatch):
    monkeypatch.setattr(running_module, "configure_logs", lambda _: None)
    status, _, told = command("serve", *(option.format(path=path) for option in options))
    assert status == 1
    assert message in told
    assert told.count("\n") == 1
