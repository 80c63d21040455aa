"""``fffcpu warmup``: compile the kernels that a server needs, before it starts."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import fffcpu
from fffcpu.cli.support.folders import open_model
from fffcpu.inference.warmup import (
    WarmedKernel,
    WarmupRun,
    cache_folder,
    standard_layers,
    warmup_runs,
)
from fffcpu.system.terminal import format_table, with_progress

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Compile the kernels of fffcpu and keep them on disk, so that later processes compile nothing.
Kernels depend on the class of a layer and on its dtype, not on its sizes or numbers, so one run
serves all layers. Run it when an image is built or a machine is set up, with the user and the
NUMBA_CACHE_DIR of the server. Kernels are compiled for this model of processor; on another model
they are compiled again. Kernels that are already on disk are only read.

examples:
  fffcpu warmup                             inference, float32, both tree layers and FastBERT
  fffcpu warmup --training --dtype float32 float64
  fffcpu warmup model.safetensors           only what the layer in this file needs
  fffcpu warmup model/                      only what the model in this folder needs
  fffcpu warmup --json                      the same report as JSON

how to read the table:
  call       the call: inference or route, and with --training forward or backward
  kernel     the compiled function
  on         caller: on the caller's thread, as for small batches; or pool: on the pool of threads,
             which is left out where NUMBA_NUM_THREADS or the machine allows one thread only
  seconds    time of the call; the first call also starts the compiler, and compiles the functions
             that all kernels share
  from       compiled, or cache: it was on disk
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="saved layers and folders of models"
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        default=["float32"],
        metavar="DTYPE",
        help="dtypes of the layers without a FILE: float32, float64 or both (float32)",
    )
    parser.add_argument("--training", action="store_true", help="also compile forward and backward")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Warm up and print the time of each kernel."""
    layers = [_load(path) for path in options.files] or [
        layer for dtype in options.dtype for layer in standard_layers(dtype)
    ]
    warmed = list(_progress(warmup_runs(layers, options.training)))
    folder = cache_folder()
    if options.json:
        report = {"cache": folder, "kernels": [kernel._asdict() for kernel in warmed]}
        print(json.dumps(report, indent=2))
    else:
        print(_format(warmed, folder))


def _load(path: str) -> Any:
    """Return the layer in a file, or the model in a folder."""
    return open_model(path) if os.path.isdir(path) else fffcpu.load(path)


def _progress(chosen: Sequence[WarmupRun]) -> Iterator[WarmedKernel]:
    """Yield each kernel's first call, with a bar on stderr if that is a terminal."""
    seen = set()
    for run in with_progress(chosen, "step", lambda run: run.kind):
        for one in run.run():
            key = one.kernel, one.dtype, one.parallel
            if key not in seen:
                seen.add(key)
                yield one


def _format(warmed: Sequence[WarmedKernel], folder: str | None) -> str:
    """Return the table for people."""
    if not warmed:
        return "nothing to compile: Numba is absent or its JIT off"
    head = ("layer", "dtype", "call", "kernel", "on", "seconds", "from")
    cells = [
        (
            one.layer,
            one.dtype,
            one.call,
            one.kernel,
            "pool" if one.parallel else "caller",
            f"{one.seconds:.2f}",
            one.source,
        )
        for one in warmed
    ]
    compiled = [one.seconds for one in warmed if one.source == "compiled"]
    summary = (
        f"compiled {len(compiled)} of {len(warmed)} kernels in {sum(compiled):.1f} s; "
        f"{len(warmed) - len(compiled)} were already compiled"
    )
    where = f"kept in {folder}" if folder else "not kept: no folder is writable"
    return "\n".join([format_table(head, cells), "", summary, where])
