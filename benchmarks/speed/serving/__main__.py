"""Requests per second of a server, its times, and rows per second of large requests.

    apt install wrk
    python -m benchmarks.speed.serving

Servers run in turn, one process each, and wrk, with one thread, asks them on the same machine:

    bare       starlette and uvicorn: parses the body as JSON and returns a constant
    fffcpu     fffcpu serve
    litserve   the same predictor behind LitServe
    mlserver   the same predictor behind MLServer

The last two need other versions of the same packages: --litserve and --mlserver name the Python of
an environment that has one of them, and `fffcpu[serve]`. Where it is not named, it is left out.

A small request is one row of 64 in JSON; the model is a predictor of 10 classes, with 4 two-sided
trees of depth 5. A large one is 1,024 rows of 768 in bytes, to a layer 768 -> 768 with 8 trees of
depth 5; its rate is compared with that of calling the layer in a loop, and with that of a bare
endpoint that sends the bytes back. The share is the median over
the rounds of the rate over that of the first line in the same round. p50 and p99 are medians, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts, table
from benchmarks.speed.options import add_quick
from fffcpu.benchmarking.machine import describe_machine

PEER = "import sys; from benchmarks.speed.serving.{} import main; main(*sys.argv[1:])"
PEERS = {"litserve": PEER.format("lit"), "mlserver": PEER.format("ml")}
"""What a Python runs that has a peer installed."""

BARE = [sys.executable, "-m", "uvicorn", "benchmarks.speed.serving.bare:app", "--no-access-log"]
OWN = [sys.executable, "-m", "fffcpu", "serve"]

PATH = "/v2/models/model/infer"
SMALL, LARGE = 64, 768
"""Widths of the rows of small and large requests."""

SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "{kind}"
{length}
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
"""


class Figures(NamedTuple):
    """What wrk printed."""

    rate: float
    """Requests per second."""
    p50: float
    p99: float
    """Milliseconds."""


class Load(NamedTuple):
    """Requests for wrk."""

    script: Path
    connections: int


def main() -> None:
    options = parse()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed: apt install wrk")
    print(f"fffcpu {fffcpu.__version__}, {facts(describe_machine())}.\n`{command_line()}`\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("\n".join(small(folder, options)), "\n")
        print("\n".join(large(folder, options)))


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds (7)")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of a run (5)")
    parser.add_argument("--connections", type=int, default=32, help="connections (32)")
    for name in PEERS:
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"a Python that has {name}")
    add_quick(parser)
    return parser.parse_args()


def small(folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the table of requests of one row."""
    rng = np.random.default_rng(0)
    layer = fffcpu.FastFeedForward(SMALL, 10, 5, trees=4, two_sided=True, rng=0)
    path = folder / "predictor.safetensors"
    schema = fffcpu.Schema("classification", tuple(f"class {k}" for k in range(10)))
    fffcpu.Predictor(layer, schema).save(path)
    row = rng.standard_normal(SMALL).astype(np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, SMALL], "data": row.tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    load = Load(write_script(folder, "small", body), options.connections)
    servers = {"bare": BARE, "fffcpu": [*OWN, f"model={path}"]}
    for name, script in PEERS.items():
        python = getattr(options, name)
        if python is None:
            print(f"{name} is left out: --{name} names no Python\n")
        else:
            servers[name] = [python, "-c", script, str(path)]
    found: dict[str, list[Figures]] = {name: [] for name in servers}
    for _ in range(options.rounds):
        for name, command in servers.items():
            with serving(command, body) as port:
                found[name].append(ask(port, load, options.seconds))
    first = found["bare"]
    lines = [
        [
            name,
            f"{middle(own, 'rate'):,.0f}",
            f"{statistics.median(a.rate / b.rate for a, b in zip(own, first, strict=True)):.2f}",
            f"{middle(own, 'p50'):.2f}",
            f"{middle(own, 'p99'):.2f}",
        ]
        for name, own in found.items()
    ]
    return table(["a row of 64, JSON", "requests/s", "share", "p50, ms", "p99, ms"], lines)


def large(folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the table of requests of many rows, and of calls of the layer."""
    rows = 32 if options.quick else 1024
    layer = fffcpu.FastFeedForward(LARGE, LARGE, 5, trees=8, rng=0)
    path = folder / "layer.safetensors"
    layer.save(path)
    x = np.random.default_rng(0).standard_normal((rows, LARGE)).astype(np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, LARGE]}
    tensor["parameters"] = {"binary_data_size": x.nbytes}
    request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    header = json.dumps(request).encode()
    length = f'wrk.headers["Inference-Header-Content-Length"] = "{len(header)}"'
    load = Load(write_script(folder, "large", header + x.tobytes(), length), 2)
    calls, served, echoed = [], [], []
    for _ in range(options.rounds):
        end, count = time.perf_counter() + options.seconds, 0
        start = time.perf_counter()
        while time.perf_counter() < end or not count:
            layer(x)
            count += 1
        calls.append(count * rows / (time.perf_counter() - start))
        with serving([*OWN, f"model={path}"], None) as port:
            served.append(rows * ask(port, load, options.seconds).rate)
        with serving(BARE, b"") as port:
            echoed.append(rows * ask(port, load, options.seconds, "/echo").rate)
    share = statistics.median(a / b for a, b in zip(served, calls, strict=True))
    lines = [
        ["calls of the layer", f"{statistics.median(calls):,.0f}", "1.00"],
        ["fffcpu", f"{statistics.median(served):,.0f}", f"{share:.2f}"],
        ["echo", f"{statistics.median(echoed):,.0f}", "-"],
    ]
    return table([f"{rows:,} rows of {LARGE}, bytes", "rows/s", "share"], lines)


def middle(found: list[Figures], name: str) -> float:
    """Return the median of a figure."""
    return statistics.median(getattr(figures, name) for figures in found)


def write_script(folder: Path, name: str, body: bytes, length: str = "") -> Path:
    """Write a body, and what makes wrk send it."""
    (folder / f"{name}.body").write_bytes(body)
    path = folder / f"{name}.lua"
    kind = "application/octet-stream" if length else "application/json"
    text = SCRIPT.format(kind=kind, length=length, body=folder / f"{name}.body")
    path.write_text(text, encoding="utf-8")
    return path


@contextlib.contextmanager
def serving(command: list[str], body: bytes | None) -> Iterator[int]:
    """Run a server on a free port, and wait until it answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    last = [str(port)] if command[2] in PEERS.values() else ["--port", str(port)]
    process = subprocess.Popen(
        [*command, *last],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait(process, port, body)
        yield port
    finally:
        process.terminate()
        process.wait(60)
        with contextlib.suppress(ProcessLookupError):  # processes that some servers leave behind
            os.killpg(process.pid, signal.SIGKILL)


def wait(process: subprocess.Popen[bytes], port: int, body: bytes | None) -> None:
    """Wait until a server answers."""
    url = f"http://127.0.0.1:{port}" + ({None: "/v2/health/ready", b"": "/echo"}.get(body, PATH))
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"a server ended with status {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit("a server did not answer within two minutes")


def ask(port: int, load: Load, seconds: float, path: str = PATH) -> Figures:
    """Return the figures of a run of wrk."""
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{max(1, round(seconds))}", "--latency"]
    done = subprocess.run(
        [*command, "-s", str(load.script), f"http://127.0.0.1:{port}{path}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"a server refused requests:\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert rate, done.stdout
    times = [
        float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
        for value, unit in re.findall(r"(?:50|99)%\s+([\d.]+)(us|ms|s)", done.stdout)
    ]
    return Figures(float(rate[1]), *times)


if __name__ == "__main__":
    main()
