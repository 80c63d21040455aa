"""What all models share: modules that use the model's arrays, a constructor, loading and saving.

A model's ``params`` and those of its modules are the same arrays::

    model.params["encoder.layers.0.feedforward.weights_in"]
    model.encoder.layers[0].feedforward.params["weights_in"]
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike

from fffcpu.checkpoints import bert, crammed_bert
from fffcpu.checks import check_flag
from fffcpu.config.bert import BertConfig
from fffcpu.config.encoder import EncoderConfig, check_choice
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError, describe
from fffcpu.layers.layer import Module
from fffcpu.models.encoder_layer import layer_over
from fffcpu.models.folders import open_config, open_weights, write_folder
from fffcpu.parameters import Parameters
from fffcpu.system.memory import check_memory

__all__ = ["BertModel", "Config", "FastBertModel", "Model", "check_float_weights"]

Config = TypeVar("Config", bound=EncoderConfig)


class Model(Module[Config]):
    """Base of the models.

    Parameters
    ----------
    config : EncoderConfig
        Config of the model, of the class that fits it.
    rng : None, int or numpy.random.Generator
        Generator or seed of the initial values, which are the published ones: weights and token
        vectors are normal with standard deviation ``config.initial_std``, including those of the
        feedforwards. Biases and the vector of the padding are 0, scales of norms 1.
    """

    config_type: ClassVar[type[EncoderConfig]]
    """Class of the configs."""
    _format: ClassVar[Any]
    """Module of `fffcpu.checkpoints` with ``from_state_dict`` and ``views``."""

    def __init__(self, config: Config, rng: Any = None) -> None:
        if not isinstance(config, self.config_type):
            raise ArgumentTypeError(
                f"argument 'config' must be a {self.config_type.__name__}, got {describe(config)}"
            )
        if config.weights is not None:
            raise ArgumentError(
                "argument 'config' of a new model must have weights=None, "
                f"got {describe(config.weights)}; quantize() of a model makes such weights"
            )
        self._start(self._own(config), rng, config.initial_std)

    @classmethod
    def _own(cls, config: Config) -> Config:
        """Return this class's config, made from one for another model class; or raise an error."""
        raise NotImplementedError

    def __repr__(self) -> str:
        config, size = self.config, f"{self.params.count / 1e6:.3g} M parameters"
        if config.weights is not None:
            size = f"{config.weights} weights, {size}"
        feedforward = f"{config.feedforward_size} neurons"
        if config.feedforward == "fff":
            sides = "two-sided " if config.two_sided else ""
            feedforward = f"{config.feedforward_size} {sides}trees of depth {config.depth}"
        return (
            f"<{type(self).__name__}: {config.layers} layers of width {config.width}, "
            f"{config.heads} heads, feedforwards of {feedforward}, {config.vocabulary} tokens; "
            f"{size}, {self.nbytes / 1e6:.3g} MB>"
        )

    def quantize(self, weights: str) -> Self:
        """Return a model for inference, whose attentions and feedforwards have int8 weights.

        Parameters
        ----------
        weights : {"int8"}
            Type of the weights. The embedding, the norms and a head stay float32.

        Raises
        ------
        ArgumentError
            If ``weights`` is not such a type, or a weight is not finite in float32.

        Notes
        -----
        Attentions and dense feedforwards multiply integers: they round each row to int8 as well.
        Trees keep float32 rows. docs/mathematics.md bounds the error of a product.
        """
        check_choice("weights", weights, ("int8",))
        if self.config.weights is not None:
            raise ArgumentTypeError(
                f"a model must have float weights to be quantized, got {self!r}"
            )
        config = dataclasses.replace(self.config, weights=weights, dtype="float32")
        return self._converted(config, lambda layer: layer.quantize(weights))

    def dequantize(self) -> Self:
        """Return a float32 model with the rounded weights, which can be trained further."""
        if self.config.weights is None:
            raise ArgumentTypeError(f"a model must have int8 weights to be widened, got {self!r}")
        config = dataclasses.replace(self.config, weights=None)
        return self._converted(config, lambda layer: layer.dequantize())

    def _converted(self, config: Config, convert: Callable[[Any], Any]) -> Self:
        """Return a model with another type of weights, given what makes a layer of another."""
        arrays: dict[str, Any] = {}
        before = self.config.modules()
        for name, own in config.modules().items():
            if type(own) is not type(before[name]):
                try:
                    layer = convert(layer_over(before, self.params, name))
                except ArgumentError as error:
                    raise ArgumentError(f"'{name}': {error}") from error
                arrays |= {f"{name}.{key}": array for key, array in layer.params.items()}
        others = {n: self.params[n] for n in config.shapes() if n not in arrays}
        arrays |= Parameters(others, config.dtype)
        return self._sharing(config, Parameters.sharing({n: arrays[n] for n in config.shapes()}))

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], dtype: DTypeLike = np.float32) -> Self:
        """Open a folder in the published form, or one that `save_pretrained` wrote.

        Parameters
        ----------
        folder : path
            Folder with ``config.json`` and ``model.safetensors``, or with the several files that
            ``model.safetensors.index.json`` names; other files are ignored. The numbers may be of
            any float type.
        dtype : {numpy.float32, numpy.float64}
            dtype of the parameters and outputs.

        Raises
        ------
        CheckpointError
            If the folder holds no such model; the message lists arrays that are missing, unexpected
            or of another shape. PyTorch's pickles are not opened; the message shows how to convert
            them.
        OSError
            If a file cannot be read.

        Notes
        -----
        Weights are copied directly from the file into the parameters, one array after the other.
        """
        place = Path(os.fsdecode(folder))
        config = cls._own_of(place, open_config(place, dtype))
        state = open_weights(place)
        config = cls._completed(config, state)
        try:
            arrays = cls._format.from_state_dict(config, state, encoder_only=cls._encoder_only)
        except CheckpointError as error:
            raise CheckpointError(f"folder '{place}': {error}") from error
        return cls._sharing(config, Parameters.sharing(arrays))

    _encoder_only = False

    @classmethod
    def _own_of(cls, place: Path, config: Any) -> Config:
        """Return the config of a model in a folder."""
        if not isinstance(config, cls.config_type):
            raise CheckpointError(
                f"folder '{place}' holds another model: its config is a {type(config).__name__}, "
                f"and {cls.__name__} needs a {cls.config_type.__name__}"
            )
        try:
            return cls._own(cast("Config", config))
        except ValueError as error:
            raise CheckpointError(f"folder '{place}' holds another model: {error}") from error

    @classmethod
    def _completed(cls, config: Config, names: Collection[str]) -> Config:
        """Return the config with what only the names of the arrays in a folder say."""
        return config

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, files: Mapping[str, str] | None = None
    ) -> None:
        """Write the model to a folder in the published form, made if it is missing.

        The files, ``config.json`` and ``model.safetensors``, replace those of another model once
        all are on the disk.

        Parameters
        ----------
        folder : path
            Folder to write to.
        files : mapping of str to str, optional
            Texts of further files of the folder by name, such as ``tokenizer.json``.

        Raises
        ------
        ArgumentError
            If a parameter is not finite.
        OSError
            If a file cannot be written.
        """
        state = self._format.views(self.config, self.params)
        write_folder(Path(os.fsdecode(folder)), self.config, state, files)

    def _check_memory(self, shape: tuple[int, ...]) -> None:
        """Raise unless there is memory for what a training step keeps of input of this shape."""
        if len(shape) == 2:  # another one is an error of the embedding
            check_memory(
                self.config.kept_bytes(*shape),
                f"a training step on {shape[0]} sequences of {shape[1]} tokens",
                lambda available: (
                    f"the largest batch that fits has "
                    f"{available // max(1, self.config.kept_bytes(1, shape[1]))} sequences"
                ),
            )


def check_float_weights(model: Model[Any], name: str) -> None:
    """Raise ArgumentTypeError if the argument ``name`` is a model with int8 weights."""
    if model.config.weights is not None:
        raise ArgumentTypeError(
            f"argument '{name}' must be a model with float weights, got {model!r}; take the model "
            "that it was quantized from, or its dequantize()"
        )


class BertModel(Model[BertConfig]):
    """Base of the BERTs: the models of ``model_type`` "bert" of Hugging Face."""

    config_type: ClassVar[type[EncoderConfig]] = BertConfig
    _format: ClassVar[Any] = bert


class FastBertModel(Model[FastBertConfig]):
    """Base of the FastBERTs; the initial scale of the positions is 1/sqrt(D)."""

    config_type: ClassVar[type[EncoderConfig]] = FastBertConfig
    _format: ClassVar[Any] = crammed_bert

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        store_decoder: bool = False,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Write the model to a folder in the published form, made if it is missing.

        The files, ``config.json`` and ``model.safetensors``, replace those of another model once
        all are on the disk. An encoder is stored as a masked language model.

        Parameters
        ----------
        folder : path
            Folder to write to.
        store_decoder : bool
            Whether to store the decoder of a masked language model under its own name too. Its
            weights are those of the word embedding, but some programs look for every name.
        files : mapping of str to str, optional
            Texts of further files of the folder by name, such as ``tokenizer.json``.

        Raises
        ------
        ArgumentError
            If ``store_decoder`` is True for a classifier, which has no decoder, or if a parameter
            is not finite.
        OSError
            If a file cannot be written.
        """
        if check_flag("store_decoder", store_decoder) and self.config.classes is not None:
            raise ArgumentError("argument 'store_decoder' must be False for a classifier, got True")
        state = crammed_bert.views(self.config, self.params)
        if store_decoder:
            state["decoder.weight"] = self.params["encoder.embedding.words"]
        write_folder(Path(os.fsdecode(folder)), self.config, state, files)
