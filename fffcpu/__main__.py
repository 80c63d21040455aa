"""``python -m fffcpu``: the command ``fffcpu``."""

from __future__ import annotations

import sys

from fffcpu.cli import main

if __name__ == "__main__":
    sys.exit(main())
