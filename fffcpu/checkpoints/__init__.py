"""Names and arrays: how parameters lie in files and in other programs' state dicts.

``safetensors_file`` reads and writes the safetensors format, and ``native`` the project's files in
it. ``ultrafastbert``, ``ultrafastbert_bmm`` and ``fastfeedforward`` translate the three
published layer formats, and ``crammed_bert`` that of whole models, each by a key map that is data.
No module here knows a layer or a kernel: a config and a mapping of arrays go in or come out.
"""

from __future__ import annotations

from fffcpu.checkpoints import (
    crammed_bert,
    fastfeedforward,
    native,
    ultrafastbert,
    ultrafastbert_bmm,
)
from fffcpu.checkpoints import safetensors as safetensors_file

__all__ = [
    "crammed_bert",
    "fastfeedforward",
    "native",
    "safetensors_file",
    "ultrafastbert",
    "ultrafastbert_bmm",
]
