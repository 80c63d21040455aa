"""The tests that a kernel must pass: the oracle, random problems, and the conformance suite.

`fffcpu.testing.conformance` holds the tests. `fffcpu.testing.plugin` is a pytest plugin that runs
them on your own backend module, from an installed package::

    pip install 'fffcpu[testing]'
    pytest -p fffcpu.testing.plugin --pyargs fffcpu.testing --kernel my_kernels

`fffcpu.testing.oracle` computes every node of both layers in float64 and imports no fffcpu module.
`fffcpu.testing.strategies` draws layers and rows for Hypothesis. Nothing in fffcpu imports this
package, and importing it imports nothing.
"""

from __future__ import annotations

__all__: list[str] = []
