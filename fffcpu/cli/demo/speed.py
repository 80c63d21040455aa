"""Part 3 of ``fffcpu demo``: the layer at BERT's size, timed against a dense layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu import DenseFeedForward, FastFeedForward, get_num_threads
from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling, doubts, ratio
from fffcpu.benchmarking.verification import check_dense, check_paths, distinct_batches
from fffcpu.system.terminal import format_number, format_table

__all__ = ["compare_at_bert_size", "print_doubts", "threads", "time_layers"]

WIDTH, DEPTH = 768, 11


def threads() -> str:
    """Return the number of threads of the kernels, in words."""
    number = get_num_threads()
    return f"{number} thread" if number == 1 else f"{number} threads"


def time_layers(
    layers: Mapping[str, Any], batches: list[NDArray[Any]], min_time: float
) -> list[Timing]:
    """Time layers on batches, in alternation."""
    contenders = [
        Contender(name, cycling(layer, batches), len(batches[0])) for name, layer in layers.items()
    ]
    return alternate(contenders, min_time=min_time)


def compare_at_bert_size(batch_rows: Sequence[int], min_time: float, seed: int) -> None:
    """Check and time FastFeedForward and the dense layer of as many neurons, and print it."""
    fast = FastFeedForward(WIDTH, WIDTH, DEPTH, rng=seed)
    dense = DenseFeedForward(WIDTH, WIDTH, fast.config.neurons, rng=seed)
    used, held = fast.config.active_neurons, fast.config.neurons
    leaves = _check(fast, dense, seed)
    print(
        f"{WIDTH} -> {WIDTH}, depth {DEPTH}: {used} of {held:,} neurons per row, against NumPy's "
        f"dense layer of {held:,}.\n"
        f"Outputs are checked, on random rows that reach {leaves:,} of the {2**DEPTH:,} leaves.\n"
    )
    rows, reasons = [], []
    for count in batch_rows:
        batches = distinct_batches(count, WIDTH, rng=seed)
        timings = time_layers({"fast": fast, "dense": dense}, batches, min_time)
        speedup = ratio(timings[1], timings[0])
        reasons += [
            f"batch {count:,}: {reason}" for reason in doubts(timings[0], timings[1], held / used)
        ]
        figures = (*(timing.microseconds for timing in timings), speedup)
        rows.append((f"{count:,}", *map(format_number, figures)))
    head = ("batch", "FastFeedForward, µs per row", "dense, µs per row", "times faster")
    print(format_table(head, rows))
    print(
        f"\nThe arithmetic allows up to {held / used:.0f} times ({held:,} / {used}). "
        f"FastFeedForward ran on {threads()}, NumPy on those of its BLAS."
    )
    print_doubts(reasons)


def print_doubts(reasons: Sequence[str]) -> None:
    """Print what speaks against figures, if anything does."""
    if reasons:
        lines = "".join(f"\n  {reason}" for reason in reasons)
        print(f"\nSome figures are doubtful; another program may have run meanwhile:{lines}")


def _check(fast: FastFeedForward, dense: DenseFeedForward, seed: int) -> int:
    """Check both layers' outputs; return the number of leaves that the rows reach."""
    x = np.concatenate(distinct_batches(1, WIDTH, rng=seed))
    check_dense(dense, x[:2], dense(x[:2]))
    return check_paths(fast, x, fast(x), fast.route(x))
