"""Names and arrays: how parameters lie in files and in other programs' state dicts.

``native`` reads and writes the project's own files. ``ultrafastbert``, ``ultrafastbert_bmm`` and
``fastfeedforward`` translate the three published layer formats, each by a key map that is data. No
module here knows a layer or a kernel: a config and a mapping of arrays go in or come out.
"""

from __future__ import annotations

from fffcpu.checkpoints import fastfeedforward, native, ultrafastbert, ultrafastbert_bmm

__all__ = ["fastfeedforward", "native", "ultrafastbert", "ultrafastbert_bmm"]
