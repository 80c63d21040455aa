"""What a kernel must pass: the oracle, random problems, and the suite that compares with them.

`fffcpu.testing.conformance` holds the tests, and `fffcpu.testing.plugin` is the pytest plugin that
runs them on a backend module of yours, from an installed package::

    pip install 'fffcpu[testing]'
    pytest -p fffcpu.testing.plugin --pyargs fffcpu.testing --kernel my_kernels

`fffcpu.testing.oracle` computes both layers in float64 the plain way and imports nothing of fffcpu.
`fffcpu.testing.strategies` draws layers and rows for Hypothesis. Nothing in fffcpu imports this
package, and importing it imports nothing.
"""

from __future__ import annotations

__all__: list[str] = []
