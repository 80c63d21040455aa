"""A server under load: clients that ask, leave and send nonsense, and ends by signal.

    python -m benchmarks.reliability.serving --minutes 60 --fuzzed 100000 --ends 50

soak   For so many minutes, clients send requests of random sizes in JSON and in bytes, and compare
       every answer with the bits of a local call and with its id. Meanwhile others leave midway,
       and others send requests that are wrong. Resident memory is noted every few seconds; what
       counts is its median in the last tenth of the time over that in the second tenth.
fuzz   Requests are changed at random. Each must be answered, with a status below 500. Number k of
       seed S is always the same: --first K --fuzzed 1 sends it again.
ends   A server under load gets SIGTERM, after a random time, again and again. It must exit with 0,
       and every request that it took up must have been answered.

All connections are on this machine. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import itertools
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.pipelines import TextEmbedder, default_model_folder
from fffcpu.system.terminal import print_status

WIDTH = 64
ROWS = (1, 1, 1, 1, 3, 17, 200)
TEXTS = ("a small fern", "the water of the river", "an old word", "to go", "")
INFER = "/v2/models/layer/infer"
CLIENTS = 4


class Server:
    """``fffcpu serve`` in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        models = [f"layer={folder / 'layer.safetensors'}", f"words={default_model_folder()}"]
        command = [sys.executable, "-m", "fffcpu", "serve", *models, "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._ready.wait(120), self.lines
        (line,) = [line for line in self.lines if "listening on" in line]
        self.port = int(line.split("127.0.0.1:")[1].split('"')[0])

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if "ready after" in line:
                self._ready.set()

    def memory(self) -> float:
        """Return the resident memory in MB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1000
        return float("nan")

    def end(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self._reader.join()


class Local:
    """What the server's models answer here."""

    def __init__(self, folder: Path) -> None:
        self.layer = fffcpu.FastFeedForward(WIDTH, 48, 5, trees=4, two_sided=True, rng=0)
        self.layer.save(folder / "layer.safetensors")
        embedder = TextEmbedder.from_pretrained(default_model_folder())
        vectors = [embedder.embed([text], normalize=True)[0].tobytes() for text in TEXTS]
        self.vectors = dict(zip(TEXTS, vectors, strict=True))


class Counts:
    """What happened, counted by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.found: Counter[str] = Counter()

    def add(self, what: str) -> None:
        """Count one more."""
        with self._lock:
            self.found[what] += 1

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {what}" for what, count in sorted(self.found.items()))


def json_request(x: Any, name: str) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
    return json.dumps({"id": name, "inputs": [tensor]}).encode()


def ask(client: http.client.HTTPConnection, local: Local, rng: random.Random, name: str) -> bool:
    """Send a request, and return whether the answer is right."""
    if rng.random() < 0.1:
        text = rng.choice(TEXTS)
        body = {"input": text, "model": "words", "encoding_format": "base64"}
        client.request("POST", "/v1/embeddings", json.dumps(body).encode())
        answer = client.getresponse()
        values = json.loads(answer.read())
        return base64.b64decode(values["data"][0]["embedding"]) == local.vectors[text]
    rows = rng.choice(ROWS)
    x = np.random.default_rng(rng.getrandbits(32)).standard_normal((rows, WIDTH))
    x = x.astype(np.float32)
    expected = local.layer(x).tobytes()
    if rng.random() < 0.5:
        client.request("POST", INFER, json_request(x, name))
        answer = client.getresponse()
        values = json.loads(answer.read())
        found = np.float32(values["outputs"][0]["data"]).tobytes()
        return bool(values["id"] == name and found == expected)
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": x.shape}
    tensor["parameters"] = {"binary_data_size": x.nbytes}
    values = {"id": name, "inputs": [tensor], "parameters": {"binary_data_output": True}}
    header = json.dumps(values).encode()
    length = {"Inference-Header-Content-Length": str(len(header))}
    client.request("POST", INFER, header + x.tobytes(), length)
    answer = client.getresponse()
    content = answer.read()
    size = int(answer.headers["Inference-Header-Content-Length"])
    return bool(json.loads(content[:size])["id"] == name and content[size:] == expected)


class Soak:
    """Clients of a server, each on a thread, until some time."""

    def __init__(self, server: Server, local: Local, end: float) -> None:
        self.server, self.local, self.end = server, local, end
        self.counts = Counts()

    def numbers(self) -> Iterator[int]:
        """Yield numbers until the end."""
        return itertools.takewhile(lambda _: time.monotonic() < self.end, itertools.count())

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)

    def asks(self, number: int) -> None:
        """Send requests, and compare the answers."""
        rng, client = random.Random(number), self.connect()
        for k in self.numbers():
            try:
                right = ask(client, self.local, rng, f"{number}-{k}")
                self.counts.add("right" if right else "WRONG")
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.counts.add(f"FAILED by {type(error).__name__}")
                client.close()
        client.close()

    def leaves(self) -> None:
        """Begin requests, and close the connection before there is an answer."""
        rng, x = random.Random(0), np.ones((2000, WIDTH), np.float32)
        for _ in self.numbers():
            client = self.connect()
            with contextlib.suppress(OSError):
                if rng.random() < 0.5:
                    client.request("POST", INFER, json_request(x, "left"))
                else:
                    client.putrequest("POST", INFER)
                    client.putheader("content-length", "100000")
                    client.endheaders(b"{")
            time.sleep(rng.random() * 0.01)
            client.close()
            self.counts.add("left")
            time.sleep(0.2)

    def is_wrong(self) -> None:
        """Send requests that are wrong."""
        for k in self.numbers():
            status = send(self.server.port, *mutated(0, k))
            self.counts.add("refused" if status < 500 else f"FAILED with {status}")
            time.sleep(0.1)


def soak(folder: Path, local: Local, options: argparse.Namespace) -> bool:
    """Load a server for some minutes; return whether all was well."""
    server = Server(folder)
    load = Soak(server, local, time.monotonic() + 60 * options.minutes)
    threads = [threading.Thread(target=load.asks, args=(k,)) for k in range(CLIENTS)]
    threads += [threading.Thread(target=load.leaves), threading.Thread(target=load.is_wrong)]
    for thread in threads:
        thread.start()
    memory = []
    for _ in load.numbers():
        time.sleep(min(2.0, 6 * options.minutes / 5))
        memory.append(server.memory())
    for thread in threads:
        thread.join()
    status = server.end()
    tenth = max(1, len(memory) // 10)
    before = statistics.median(memory[tenth : 2 * tenth])
    after = statistics.median(memory[-tenth:])
    print(f"soak: {options.minutes:g} minutes, {load.counts}, exit status {status}")
    print(f"      resident {before:.1f} MB, in the end {after:.1f} MB ({after / before - 1:+.1%})")
    failed = any(what.startswith(("WRONG", "FAILED")) for what in load.counts.found)
    return not failed and status == 0


def mutated(seed: int, number: int) -> tuple[str, bytes, dict[str, str]]:
    """Return a path, a body and headers that were right before they were changed."""
    rng = random.Random(f"{seed} {number}")
    x = np.ones((rng.choice((1, 2)), WIDTH), np.float32)
    path, headers = INFER, {}
    body = bytearray(json_request(x, "fuzz"))
    kind = rng.randrange(5)
    if kind == 1:
        text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a [MASK]"]}
        body, path = bytearray(json.dumps({"inputs": [text]}).encode()), "/v2/models/words/infer"
    elif kind == 2:
        body, path = bytearray(b'{"input": ["a", "b"], "model": "words"}'), "/v1/embeddings"
    elif kind == 3:
        tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": x.shape}
        tensor["parameters"] = {"binary_data_size": x.nbytes}
        header = json.dumps({"inputs": [tensor]}).encode()
        headers["Inference-Header-Content-Length"] = str(len(header) + rng.choice((0, 0, 1, -1, 9)))
        body = bytearray(header + x.tobytes())
    for _ in range(rng.choice((1, 1, 2, 8))):
        change(body, rng)
    return path, bytes(body), headers


TOKENS = (
    *(
        b"null",
        b"true",
        b"-1",
        b"1e400",
        b"[]",
        b"{}",
        b'"',
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b"\\ud800",
    ),
    *(b"99999999999999999999", b'"shape"', b'"data"', b'"BYTES"', b'"FP64"', b"[[[[", b"\xff\x00"),
)


def change(body: bytearray, rng: random.Random) -> None:
    """Change some bytes of a body."""
    at = rng.randrange(len(body) + 1)
    size = rng.choice((0, 1, 1, 4, 30))
    if rng.random() < 0.3:  # where the structure is, rather than in the middle of numbers
        at = rng.randrange(min(100, len(body)) + 1)
    if rng.random() < 0.5:
        body[at : at + size] = rng.choice(TOKENS)
    else:
        body[at : at + size] = rng.randbytes(size)


def send(port: int, path: str, body: bytes, headers: dict[str, str], client: Any = None) -> int:
    """Return the status of the answer; 599 if there is none."""
    own = client or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        own.request("POST", path, body, headers)
        answer = own.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        own.close()
        return 599
    finally:
        if client is None:
            own.close()


def fuzz(folder: Path, options: argparse.Namespace) -> bool:
    """Send changed requests; return whether each was answered as it should be."""
    server, statuses, bad = Server(folder), Counter[int](), []
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for number in range(options.first, options.first + options.fuzzed):
        status = send(server.port, *mutated(options.seed, number), client)
        statuses[status] += 1
        if status >= 500:
            bad.append(number)
    client.close()
    status = server.end()
    found = ", ".join(f"{count:,} with {name}" for name, count in sorted(statuses.items()))
    print(f"fuzz: seed {options.seed}, {found}, exit status {status}")
    if bad:
        print(f"      numbers {bad[:20]}")
        print("".join(server.lines[-40:]))
    return not bad and status == 0


def ends(folder: Path, options: argparse.Namespace) -> bool:
    """End servers under load; return whether none lost a request."""
    rng, wrong = random.Random(options.seed), 0
    answered = 0
    for _ in range(options.ends):
        server = Server(folder, "--log", "json")
        count, status = one_end(server, rng)
        told = sum(f'"path": "{INFER}"' in line for line in server.lines)
        answered += count
        if status != 0 or told != count:
            wrong += 1
            print_status(f"exit status {status}, {told} requests taken up, {count} answered")
    print(f"ends: {options.ends} times SIGTERM, {answered:,} answers, {wrong} times wrong")
    return not wrong


def one_end(server: Server, rng: random.Random) -> tuple[int, int]:
    """Load a server and end it; return the number of answers and the exit status."""
    counts = Counts()

    def client(seed: int) -> None:
        own = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                x = np.ones((own.choice(ROWS), WIDTH), np.float32)
                connection.request("POST", INFER, json_request(x, "end"))
                answer = connection.getresponse()
                answer.read()
                counts.add(str(answer.status))
        connection.close()

    threads = [threading.Thread(target=client, args=(k,)) for k in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(rng.random())
    status = server.end()
    for thread in threads:
        thread.join()
    return sum(counts.found.values()), status


@contextlib.contextmanager
def prepared() -> Iterator[tuple[Path, Local]]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name), Local(Path(name))


def main() -> None:
    options = parse()
    print(f"fffcpu {fffcpu.__version__}, {facts(describe_machine())}.\n`{command_line()}`\n")
    with prepared() as (folder, local):
        right = [
            not options.minutes or soak(folder, local, options),
            not options.fuzzed or fuzz(folder, options),
            not options.ends or ends(folder, options),
        ]
    if not all(right):
        sys.exit(1)


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes of load (1)")
    parser.add_argument("--fuzzed", type=int, default=1000, help="requests that are changed (1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first of these (0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes (0)")
    parser.add_argument("--ends", type=int, default=2, help="times that a server is ended (2)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
