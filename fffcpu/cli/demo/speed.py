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
    """Check and time FastFeedForward and two dense layers, and print it.

    One dense layer has as many neurons as the tree holds, the other as many as a row uses.
    """
    fast = FastFeedForward(WIDTH, WIDTH, DEPTH, rng=seed)
    used, held = fast.config.active_neurons, fast.config.neurons
    dense = DenseFeedForward(WIDTH, WIDTH, held, rng=seed)
    narrow = DenseFeedForward(WIDTH, WIDTH, used, rng=seed)
    layers = {"FFF": fast, f"dense {held:,}": dense, f"dense {used}": narrow}
    leaves = _check(fast, dense, seed)
    print(
        f"{WIDTH} -> {WIDTH}, depth {DEPTH}: {used} of {held:,} neurons per row.\n"
        f"Outputs are checked, on random rows that reach {leaves:,} of the {2**DEPTH:,} leaves.\n"
    )
    rows, reasons = [], []
    for count in batch_rows:
        batches = distinct_batches(count, WIDTH, rng=seed)
        timings = time_layers(layers, batches, min_time)
        tree, all_neurons, few = timings
        reasons += [
            f"batch {count:,}: {reason}" for reason in doubts(tree, all_neurons, held / used)
        ]
        figures = [timing.microseconds for timing in timings]
        ratios = ratio(all_neurons, tree), ratio(tree, few)
        rows.append((f"{count:,}", *map(format_number, (*figures, *ratios))))
    head = ("batch", *(f"{name}, µs/row" for name in layers), "times faster", "price")
    print(format_table(head, rows))
    print(
        f"\nTimes faster: than {held:,} dense neurons. "
        f"The arithmetic allows {held / used:.0f} ({held:,} / {used}).\n"
        f"Price: the number of dense neurons, of a layer of {used}, that take as long as one\n"
        "used neuron. Trees pay off where a used neuron is worth more of them than that.\n"
        f"Kernels ran on {threads()}."
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
