"""Names and arrays: how parameters are stored in files and in other programs' state dicts.

``safetensors`` reads and writes the safetensors format, and ``native`` the project's files, which
use it. ``ultrafastbert``, ``ultrafastbert_bmm`` and ``fastfeedforward`` translate the three
published layer formats, ``crammed_bert`` and ``bert`` those of whole models, by key maps.
No module here depends on layers or kernels: functions take or return a config and a mapping of
arrays.
"""

from __future__ import annotations

from fffcpu.checkpoints import (
    bert,
    crammed_bert,
    fastfeedforward,
    native,
    safetensors,
    ultrafastbert,
    ultrafastbert_bmm,
)

__all__ = [
    "bert",
    "crammed_bert",
    "fastfeedforward",
    "native",
    "safetensors",
    "ultrafastbert",
    "ultrafastbert_bmm",
]
