"""What models with a head share: checking labels first, and sharing batches among threads.

::

    tokens, labels  ->  checked  ->  encoder  ->  head  ->  loss
                                        and backward

A wrong label raises an error before the encoder computes anything.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

from numpy.typing import NDArray

from fffcpu.config.bert import BertConfig
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, describe
from fffcpu.models.bert import BertEncoder
from fffcpu.models.data_parallel import (
    ShardCaches,
    backward_in_shards,
    forward_in_shards,
    share_out,
)
from fffcpu.models.encoder import Encoder, FastBertEncoder
from fffcpu.models.model import BertModel, Config, FastBertModel, Model
from fffcpu.parameters import Parameters

__all__ = ["BertWithHead", "FastBertWithHead", "ModelWithHead"]

Inputs = tuple[Any, ...]
"""Arguments of an encoder: the tokens, their mask, and in a BERT their types."""


class ModelWithHead(Model[Config]):
    """Base of the models with an encoder, a head and a loss.

    Attributes
    ----------
    encoder : FastBertEncoder or BertEncoder
        The encoder, with the same arrays.
    """

    encoder: Any

    _encoder_type: ClassVar[type[Encoder[Any]]]
    _cache_type: ClassVar[type]
    """Class of the cache that `_forward` returns for `_backward`."""

    def _set_up(self, config: Config, params: Parameters) -> None:
        super()._set_up(config, params)
        own = cast("Config", self._encoder_type._own(config))
        shared = Parameters.sharing({name: params[name] for name in own.shapes()})
        self.encoder = self._encoder_type._sharing(own, shared)

    def _inputs(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Inputs:
        """Return the arguments of the encoder."""
        raise NotImplementedError

    def _loss_of(self, inputs: Inputs, labels: Any, rng: Any) -> tuple[float, Any]:
        """Return the loss and the cache of a batch; its labels are checked first."""
        ids = self.encoder.embedding.as_tokens(inputs[0])
        checked = (ids, *inputs[1:], self._as_labels(labels, ids.shape))
        # Lists stay whole, although they are arrays at this point.
        given = (*inputs, labels)
        slices = share_out(self.config, *given, gradients=self.params.count)
        if slices:
            return forward_in_shards(self._forward, slices, checked, rng, self._count)
        return self._forward(*checked, rng)

    def backward(
        self, cache: Any, *, row_sparse: bool = False, straight_through: bool = False
    ) -> dict[str, Any]:
        """Return the gradients of the loss.

        Parameters
        ----------
        cache : object
            Cache that `forward` returned.
        row_sparse : bool
            Whether gradients of FastFeedForward layers hold only the rows of visited nodes, as
            `fffcpu.parameters.RowGradient`.
        straight_through : bool
            Whether routes of FastFeedForward layers have a gradient; see
            `fffcpu.FastFeedForward.backward`. Otherwise they are held constant.

        Returns
        -------
        dict of str to array, or to RowGradient
            Gradients, with the names, order and shapes of ``params``.
        """
        if isinstance(cache, ShardCaches):
            return backward_in_shards(self._backward, cache, row_sparse, straight_through)
        if not isinstance(cache, self._cache_type):
            raise ArgumentTypeError(
                f"argument 'cache' must be the {self._cache_type.__name__} that forward of this "
                f"model returned, got {describe(cache)}"
            )
        return self._backward(cache, row_sparse, straight_through)

    def _as_labels(self, labels: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return checked labels as an array; ``shape`` is that of the tokens (B, S)."""
        raise NotImplementedError

    def _forward(self, *inputs_labels_rng: Any) -> tuple[float, Any]:
        """Run sequences that are not split further, with labels that `_as_labels` returned.

        The arguments are those of the encoder, the labels and the generator.
        """
        raise NotImplementedError

    def _backward(self, cache: Any, row_sparse: bool, straight_through: bool) -> dict[str, Any]:
        """Return the gradients of sequences that were not split further."""
        raise NotImplementedError

    @staticmethod
    def _count(cache: Any) -> int:
        """Return the number of terms in the mean loss of some sequences."""
        raise NotImplementedError


class FastBertWithHead(FastBertModel, ModelWithHead[FastBertConfig]):
    """Base of the FastBERTs with a head; their tokens have no types."""

    encoder: FastBertEncoder

    _encoder_type = FastBertEncoder

    def _inputs(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Inputs:
        if token_type_ids is not None:
            raise ArgumentError(
                "argument 'token_type_ids' must be None for a FastBERT, whose tokens have no "
                f"types, got {describe(token_type_ids)}"
            )
        return input_ids, attention_mask


class BertWithHead(BertModel, ModelWithHead[BertConfig]):
    """Base of the BERTs with a head."""

    encoder: BertEncoder

    _encoder_type = BertEncoder

    def _inputs(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Inputs:
        return input_ids, attention_mask, token_type_ids
