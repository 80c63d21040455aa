"""The file of ``fffcpu demo``: a network saved, reloaded and compared."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fffcpu.data import Table
from fffcpu.errors import WrongOutputError
from fffcpu.inference.predictor import Predictor
from fffcpu.recipes.fitting import evaluate_table

__all__ = ["save_and_reload"]


def save_and_reload(network: Predictor, out: str | None, test: Table) -> Path:
    """Save a network, reload it, and check that its outputs have the same bits.

    Parameters
    ----------
    network : Predictor
        The network to save.
    out : str or None
        The file to write; None for one in a new temporary folder.
    test : Table
        Rows to compare on.

    Returns
    -------
    Path
        The written file.

    Raises
    ------
    WrongOutputError
        If the reloaded network has different outputs.
    """
    path = Path(out or Path(tempfile.mkdtemp(prefix="fffcpu-")) / "digits.safetensors")
    network.save(path)
    reloaded = Predictor.load(path)
    if reloaded.scores(test.x).tobytes() != network.scores(test.x).tobytes():
        raise WrongOutputError(f"the network reloaded from '{path}' has different outputs")
    accuracy = evaluate_table(reloaded, test)["accuracy"]
    print(f"\nsaved to {path} ({path.stat().st_size:,} bytes)")
    print(f"reloaded: bit-identical outputs, test accuracy {accuracy:.1%}")
    return path
