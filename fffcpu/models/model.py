"""What all models share: parts on common memory, and folders in the published form.

A model's ``params`` and those of its parts are the same arrays::

    model.params["encoder.layers.0.feedforward.weights_in"]
    model.encoder.layers[0].feedforward.params["weights_in"]
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from fffcpu.checkpoints import crammed_bert
from fffcpu.checkpoints.native import parse_json, write_atomically, write_tensors
from fffcpu.checkpoints.safetensors_file import SafetensorsFile
from fffcpu.errors import CheckpointError
from fffcpu.fastbert_config import FastBertConfig
from fffcpu.layers.layer import Part
from fffcpu.parameters import Parameters

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "Model"]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

_PICKLES = ("*.bin", "*.pt", "*.pth")
"""Files of PyTorch, which are Python pickles."""

_ABBREVIATIONS = {"float32": "F32", "float64": "F64"}


class Model(Part[FastBertConfig]):
    """Base of the models.

    Parameters
    ----------
    config : FastBertConfig
        What the model is.
    rng : None, int or numpy.random.Generator
        For the initial values, which are the published ones: weights and tokens are normal with
        standard deviation ``config.initial_std``, the feedforward's included; biases and the vector
        of the padding are 0, scales of norms 1, that of positions 1/sqrt(D).
    """

    def __init__(self, config: FastBertConfig, rng: Any = None) -> None:
        self._start(self._own(config), rng, config.initial_std)

    @classmethod
    def _own(cls, config: FastBertConfig) -> FastBertConfig:
        """Return the config such a model has, given one that others may have; or raise."""
        raise NotImplementedError

    def __repr__(self) -> str:
        config, size = self.config, f"{self.params.count / 1e6:.3g} M parameters"
        feedforward = f"{config.feedforward_size} neurons"
        if config.feedforward == "fff":
            feedforward = f"{config.feedforward_size} trees of depth {config.depth}"
        return (
            f"<{type(self).__name__}: {config.layers} layers of width {config.width}, "
            f"{config.heads} heads, feedforwards of {feedforward}, {config.vocabulary} tokens; "
            f"{size}, {self.nbytes / 1e6:.3g} MB>"
        )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], dtype: DTypeLike = np.float32) -> Self:
        """Open a folder in the published form, or one that `save_pretrained` wrote.

        Parameters
        ----------
        folder : path
            With ``config.json`` and ``model.safetensors``; other files are ignored. The numbers may
            be of any float type.
        dtype : {numpy.float32, numpy.float64}
            Of parameters and outputs.

        Raises
        ------
        CheckpointError
            If the folder holds no such model: what is missing, unexpected or of another shape is
            listed. PyTorch's pickles are not opened; the message says how to convert one.
        OSError
            If a file cannot be read.

        Notes
        -----
        Weights are copied from the file to where they belong, one array after the other.
        """
        place = Path(os.fsdecode(folder))
        config = cls._own_of(place, _read_config(place, dtype))
        state = SafetensorsFile(_weights(place))
        try:
            arrays = crammed_bert.from_state_dict(config, state, encoder_only=cls._encoder_only)
        except CheckpointError as error:
            raise CheckpointError(f"folder '{place}': {error}") from error
        return cls._sharing(config, Parameters.sharing(arrays))

    _encoder_only = False

    @classmethod
    def _own_of(cls, place: Path, config: FastBertConfig) -> FastBertConfig:
        """Return the config of a model in a folder."""
        try:
            return cls._own(config)
        except ValueError as error:
            raise CheckpointError(f"folder '{place}' holds another model: {error}") from error

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder in the published form, which is made if need be.

        Each of the two files, ``config.json`` and ``model.safetensors``, appears complete or not
        at all. The decoder of a masked language model is stored once, as the word embedding; an
        encoder is stored as a masked language model.

        Raises
        ------
        OSError
            If a file cannot be written.
        """
        place = Path(os.fsdecode(folder))
        place.mkdir(parents=True, exist_ok=True)
        dtype = _ABBREVIATIONS[self.config.dtype]
        state = crammed_bert.views(self.config, self.params)
        with write_atomically(place / WEIGHTS_FILE) as temporary:
            tensors = {name: (dtype, array) for name, array in state.items()}
            write_tensors(temporary, tensors, {"format": "pt"})
        text = json.dumps(self.config.to_dict(), indent=2, sort_keys=True) + "\n"
        with write_atomically(place / CONFIG_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _read_config(place: Path, dtype: DTypeLike) -> FastBertConfig:
    """Return the config in a folder."""
    if place.is_file():
        raise CheckpointError(
            f"'{place}' must be a folder with '{CONFIG_FILE}' and '{WEIGHTS_FILE}', got a file"
        )
    path = place / CONFIG_FILE
    try:
        values = parse_json(path.read_text(encoding="utf-8"), "it")
        return FastBertConfig.from_dict(values, dtype=dtype)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"file '{path}' is damaged: it is not UTF-8") from error
    except CheckpointError as error:
        raise CheckpointError(f"file '{path}' {error}") from error


def _weights(place: Path) -> Path:
    """Return where a folder's weights are."""
    path = place / WEIGHTS_FILE
    pickles = sorted(found.name for pattern in _PICKLES for found in place.glob(pattern))
    if pickles and not path.exists():
        raise CheckpointError(
            f"folder '{place}' has no '{WEIGHTS_FILE}', but '{pickles[0]}', which is a Python "
            "pickle, as PyTorch writes it, and pickles are never opened here; convert it to "
            "safetensors first, as docs/formats.md shows"
        )
    return path
