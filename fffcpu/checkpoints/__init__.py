"""Names and arrays: how parameters are stored in files and in other programs' state dicts.

``safetensors`` reads and writes the safetensors format, and ``native`` the project's files, which
use it. ``ultrafastbert``, ``ultrafastbert_bmm`` and ``fastfeedforward`` translate the three
published layer formats, and ``crammed_bert`` that of whole models, each by a key map that is data.
No module here depends on layers or kernels: functions take or return a config and a mapping of
arrays.
"""

from __future__ import annotations

from fffcpu.checkpoints import (
    crammed_bert,
    fastfeedforward,
    native,
    safetensors,
    ultrafastbert,
    ultrafastbert_bmm,
)

__all__ = [
    "crammed_bert",
    "fastfeedforward",
    "native",
    "safetensors",
    "ultrafastbert",
    "ultrafastbert_bmm",
]
