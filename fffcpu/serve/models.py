"""What a server computes with: layers, predictors and text models, behind one interface.

`ServedModel.prepare` checks a request and makes a `Job` of it, before the request joins a batch.
`ServedModel.compute` computes several jobs together and gives each its own outputs. The bits of a
job's outputs do not depend on the other jobs: kernels and elementwise functions give a row the same
bits in any batch, and pipelines a text. Plain NumPy gives a dense layer's row no such bits, so
without compiled kernels the requests of dense layers are computed one by one.
"""

from __future__ import annotations

import abc
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import as_rows
from fffcpu.config import LayerConfig
from fffcpu.errors import ArgumentTypeError, CheckpointError, describe
from fffcpu.inference.pipelines import (
    POOLINGS,
    FillMask,
    Guess,
    TextClassifier,
    TextEmbedder,
    open_pipeline,
)
from fffcpu.inference.predictor import Predictor, load_model
from fffcpu.inference.warmup import warmup
from fffcpu.layers import DenseFeedForward, Layer
from fffcpu.models.folders import CONFIG_FILE
from fffcpu.serve.errors import AbandonedError, RequestError
from fffcpu.serve.tensors import BYTES, InferRequest, TensorSpec, datatype_of

__all__ = [
    "Job",
    "LayerModel",
    "PredictorModel",
    "ServedModel",
    "TextModel",
    "open_served",
    "served",
]

Array = NDArray[Any]
Outputs = dict[str, Array]
Wanted = Callable[[], bool]

PER_ROW, PER_NUMBER, PER_TEXT = 50, 5, 500
"""Multiply-adds that would take as long as the rest of the work on a row, on each number of a row
and on each text in a table."""

PART_TOKENS = 1 << 13
"""Tokens of texts that are computed before the next look whether anybody waits for them."""

MAX_TOP = 100
"""Most tokens per mask that a request may ask for."""


class Job(NamedTuple):
    """A request that was checked."""

    key: tuple[Any, ...]
    """Jobs of a model with the same key can be computed together."""
    rows: int
    """Number of its rows, or texts."""
    work: float
    """Multiply-adds, about."""
    payload: Any
    """What `ServedModel.compute` takes."""


class ServedModel(abc.ABC):
    """A model behind a name.

    Parameters
    ----------
    max_outputs : int
        Most bytes that the outputs of a request may take.
    """

    name: str = ""
    """Its name, which the registry of the server gives."""
    platform: str
    """Its kind, as its metadata show it."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    """What a request may ask for."""
    standard: tuple[str, ...]
    """Names of the outputs of a request that names none."""

    def __init__(self, max_outputs: int) -> None:
        self.max_outputs = max_outputs

    @abc.abstractmethod
    def prepare(self, request: InferRequest) -> Job:
        """Return the job of a request.

        Raises
        ------
        RequestError
            If the model cannot compute it.
        """

    @abc.abstractmethod
    def compute(self, jobs: Sequence[Job], is_wanted: Wanted) -> list[Outputs]:
        """Return the outputs of jobs with one key.

        Parameters
        ----------
        jobs : sequence of Job
            The jobs.
        is_wanted : callable
            Returns whether somebody still waits for the outputs. What takes more than a second asks
            it from time to time.

        Raises
        ------
        ValueError, MemoryError
            If one of the jobs cannot be computed.
        AbandonedError
            If nobody waits any longer.
        """

    @abc.abstractmethod
    def warm(self) -> None:
        """Compile, or read from the disk, what `compute` needs."""

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Bytes of its parameters."""

    def wanted(self, request: InferRequest) -> tuple[str, ...]:
        """Return the names of the outputs to give.

        Raises
        ------
        RequestError
            If the model has no such output.
        """
        if request.outputs is None:
            return self.standard
        known = [spec.name for spec in self.outputs]
        for name, _ in request.outputs:
            if name not in known:
                raise RequestError(f"the outputs are {', '.join(known)}, got {name!r}")
        return tuple(name for name, _ in request.outputs)

    def _check_size(self, rows: int, numbers: int, itemsize: int) -> None:
        """Raise if the outputs of some rows, of so many numbers each, take too much memory."""
        if rows * numbers * itemsize > self.max_outputs:
            most = max(1, self.max_outputs // (numbers * itemsize))
            raise RequestError(
                f"a request may have at most {most} rows, which give {numbers} numbers each, "
                f"got {rows}",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )

    def _only_input(self, request: InferRequest, name: str) -> Array:
        """Return the one input of a request."""
        if set(request.inputs) != {name}:
            given = ", ".join(map(repr, request.inputs))
            raise RequestError(f"the only input is {name!r}, got {given}")
        return request.inputs[name]


class LayerModel(ServedModel):
    """A layer: input ``x`` (rows, I), output ``y`` (rows, O)."""

    platform = "fffcpu_layer"
    standard = ("y",)

    def __init__(self, layer: Any, max_outputs: int) -> None:
        super().__init__(max_outputs)
        self.layer = layer
        config, datatype = layer.config, _datatype(layer.config)
        self.inputs = (TensorSpec("x", datatype, (-1, config.input_dim)),)
        self.outputs = (TensorSpec("y", datatype, (-1, config.output_dim)),)

    def prepare(self, request: InferRequest) -> Job:
        """Return the job of a request."""
        self.wanted(request)
        config = self.layer.config
        x = _rows(self._only_input(request, "x"), config.input_dim)
        self._check_size(len(x), config.output_dim, config.itemsize)
        rows, _ = as_rows(x, "x", config.input_dim, np.dtype(config.dtype))
        work = len(rows) * (config.multiply_adds + PER_ROW)
        return Job(_key(self.layer), len(rows), work, rows)

    def compute(self, jobs: Sequence[Job], is_wanted: Wanted) -> list[Outputs]:
        """Return the outputs of jobs."""
        y = self.layer(_together([job.payload for job in jobs]))
        return [{"y": part} for part in _apart(y, jobs)]

    def warm(self) -> None:
        """Compile kernels, or read them."""
        warmup(self.layer)

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return int(self.layer.nbytes)


class PredictorModel(ServedModel):
    """A predictor: what it predicts for rows as measured.

    Its input is ``x`` (rows, C), or one tensor per column, by the columns' names. Where columns
    hold texts or dates, only the latter will do.
    """

    platform = "fffcpu_predictor"

    def __init__(self, predictor: Predictor, max_outputs: int) -> None:
        super().__init__(max_outputs)
        self.predictor = predictor
        schema, config = predictor.schema, predictor.layer.config
        encoding = schema.table_encoding
        self.names = () if encoding is None else encoding.names
        kinds = () if schema.encoding is None else (c.kind for c in schema.encoding.columns)
        self.takes_x = all(kind == "number" for kind in kinds)
        self.columns = len(self.names) or config.input_dim
        if self.takes_x:
            self.inputs = (TensorSpec("x", _datatype(config), (-1, self.columns)),)
        else:
            assert schema.encoding is not None
            self.inputs = tuple(
                TensorSpec(name, "FP64" if column.kind == "number" else BYTES, (-1,))
                for name, column in zip(self.names, schema.encoding.columns, strict=True)
            )
        numbers = "FP64" if schema.exact else _datatype(config)
        if schema.task == "regression":
            shape = (-1,) if config.output_dim == 1 else (-1, config.output_dim)
            self.outputs = (TensorSpec("prediction", numbers, shape),)
        else:
            alone = schema.task == "classification"
            label = datatype_of(schema.labels) if alone else "INT64"
            shape = (-1,) if alone else (-1, config.output_dim)
            self.outputs = (
                TensorSpec("label", label, shape),
                TensorSpec("probabilities", numbers, (-1, config.output_dim)),
            )
        self.standard = tuple(spec.name for spec in self.outputs)

    def prepare(self, request: InferRequest) -> Job:
        """Return the job of a request."""
        wanted, config = self.wanted(request), self.predictor.layer.config
        payload: Array | dict[str, Array]
        per_row = PER_ROW + PER_NUMBER * self.columns + config.multiply_adds
        if (
            self.takes_x
            and set(request.inputs) == {"x"}
            and (request.inputs["x"].ndim != 1 or self.names != ("x",))
        ):
            payload = _rows(self._only_input(request, "x"), self.columns)
            rows, kind = len(payload), payload.dtype.str
        else:
            payload = self._table(request)
            rows = len(next(iter(payload.values())))
            kind = "".join(column.dtype.str for column in payload.values())
            per_row += PER_TEXT * sum(column.dtype == object for column in payload.values())
        labels = self.predictor.schema.labels.itemsize if self.predictor.schema.classes else 8
        self._check_size(rows, 2 * config.output_dim + labels // 8, 8)
        key = (wanted, kind, *_key(self.predictor.layer))
        return Job(key, rows, rows * per_row, payload)

    def _table(self, request: InferRequest) -> dict[str, Array]:
        """Return the columns of a request, in the order of the model."""
        if not self.names or set(request.inputs) != set(self.names):
            raise RequestError(self._wrong_names(request.inputs))
        columns = {name: request.inputs[name] for name in self.names}
        lengths = {column.shape for column in columns.values()}
        if len(lengths) > 1 or len(next(iter(lengths))) != 1:
            raise RequestError(f"inputs must have one shape (rows,), got {sorted(lengths)}")
        return columns

    def _wrong_names(self, given: Iterable[str]) -> str:
        """Return the message about inputs of other names."""
        known = " or ".join(filter(None, ("x" * self.takes_x, ", ".join(self.names))))
        missing = [name for name in self.names if name not in given]
        unknown = [name for name in given if name not in self.names]
        if len(missing) == len(self.names):
            return f"the inputs are {known}, got {', '.join(given)}"
        told = [f"missing: {', '.join(missing)}"] if missing else []
        told += [f"unknown: {', '.join(unknown)}"] if unknown else []
        return f"the inputs are {known}; {'; '.join(told)}"

    def compute(self, jobs: Sequence[Job], is_wanted: Wanted) -> list[Outputs]:
        """Return the outputs of jobs."""
        wanted = jobs[0].key[0]
        payloads = [job.payload for job in jobs]
        x: Any
        if isinstance(payloads[0], dict):
            x = {name: _together([own[name] for own in payloads]) for name in self.names}
        else:
            x = _together(payloads)
        scores = self.predictor.scores(x)
        outputs = {}
        if "label" in wanted or "prediction" in wanted:
            name = "label" if "label" in wanted else "prediction"
            outputs[name] = self.predictor.predict_scores(scores)
        if "probabilities" in wanted:
            outputs["probabilities"] = self.predictor.score_probabilities(scores)
        parts = [_apart(outputs[name], jobs) for name in wanted]
        return [dict(zip(wanted, own, strict=True)) for own in zip(*parts, strict=True)]

    def warm(self) -> None:
        """Compile kernels, or read them."""
        warmup(self.predictor.layer)

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return int(self.predictor.layer.nbytes)


class TextJob(NamedTuple):
    """What a `TextModel` computes."""

    tokens: list[list[int]]
    """Tokens of each text."""
    masks: int
    """Masks per text, for guesses of masked tokens."""


class TextModel(ServedModel):
    """A FastBERT or BERT: input ``text`` (texts,), and outputs by the kind of the model.

    Every one gives an ``embedding``, if a request asks for it. A masked language model gives
    ``tokens`` and ``probabilities`` (texts, masks, top), and a classifier ``label`` and
    ``probabilities``, or a ``prediction``.
    """

    inputs = (TensorSpec("text", BYTES, (-1,)),)

    def __init__(
        self, pipeline: FillMask | TextClassifier | TextEmbedder, max_outputs: int
    ) -> None:
        super().__init__(max_outputs)
        self.pipeline = pipeline
        model, tokenizer = self.pipeline.model, self.pipeline.tokenizer
        encoder: Any = getattr(model, "encoder", model)
        self.embedder = TextEmbedder(encoder, tokenizer)
        config, number = model.config, _datatype(model.config)
        own: tuple[TensorSpec, ...] = ()
        self.platform = "fffcpu_encoder"
        if isinstance(self.pipeline, FillMask):
            self.platform = "fffcpu_masked_lm"
            own = (
                TensorSpec("tokens", BYTES, (-1, -1, -1)),
                TensorSpec("probabilities", number, (-1, -1, -1)),
            )
        elif isinstance(self.pipeline, TextClassifier):
            self.platform = "fffcpu_text_classifier"
            classes = len(self.pipeline.labels)
            own = (TensorSpec("prediction", number, (-1,)),)
            if classes:
                own = (
                    TensorSpec("label", BYTES, (-1,)),
                    TensorSpec("probabilities", number, (-1, classes)),
                )
        embedding = TensorSpec("embedding", number, (-1, config.width))
        self.outputs = (*own, embedding)
        self.standard = tuple(spec.name for spec in own or (embedding,))

    def prepare(self, request: InferRequest) -> Job:
        """Return the job of a request."""
        texts = self._only_input(request, "text")
        if texts.dtype != object or texts.ndim != 1:
            raise RequestError(
                f"input 'text' must be BYTES of shape (texts,), got {datatype_of(texts)} of shape "
                f"{list(texts.shape)}"
            )
        wanted, options = self.wanted(request), _text_options(request.parameters)
        embeds = "embedding" in wanted
        if embeds and len(wanted) > 1:
            raise RequestError(f"ask for 'embedding' alone, got {', '.join(wanted)}")
        return self.job(texts.tolist(), wanted, options)

    def job(self, texts: list[str], wanted: tuple[str, ...], options: Mapping[str, Any]) -> Job:
        """Return the job of some texts.

        Raises
        ------
        RequestError
            If a text is too long, or a model of masked tokens has no masks to fill.
        """
        pipeline = self.embedder if wanted == ("embedding",) else self.pipeline
        config = pipeline.model.config
        self._check_size(len(texts), config.width, config.itemsize)
        try:
            tokens = pipeline.tokenize(texts)
        except ValueError as error:
            raise RequestError(str(error)) from None
        longest = max(map(len, tokens), default=0)
        if longest > config.longest and not options["truncate"]:
            raise RequestError(
                f"texts may have {config.longest} tokens, got one of {longest}; parameter "
                "'truncate': true drops the rest",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
        masks, decoded = 0, 0
        if isinstance(pipeline, FillMask):
            masks = self._masks(pipeline, tokens)
            decoded = len(texts) * masks * (config.width + PER_TEXT) * config.vocabulary
            top = options["top"]
            words = len(pipeline.tokenizer.word_ids)
            if top > words:
                raise RequestError(f"parameter 'top' must be at most {words}, got {top}")
            self._check_size(len(texts), max(1, masks) * top, 32)
        total = sum(min(len(row), config.longest) for row in tokens)
        work = 12.0 * config.layers * config.width**2 * total + decoded
        key = (wanted, *sorted(options.items()))
        return Job(key, len(texts), work, TextJob(tokens, masks))

    def _masks(self, pipeline: FillMask, tokens: list[list[int]]) -> int:
        """Return the number of masks of each text; it must be one number."""
        counts = {row.count(pipeline.tokenizer.mask_id) for row in tokens} or {0}
        if len(counts) > 1 or (0 in counts and tokens):
            raise RequestError(
                "each text must have as many [MASK] as the others, and at least one, "
                f"got {sorted(counts)}"
            )
        return counts.pop()

    def compute(self, jobs: Sequence[Job], is_wanted: Wanted) -> list[Outputs]:
        """Return the outputs of jobs."""
        wanted, *options = jobs[0].key
        given = dict(options)
        rows = [row for job in jobs for row in job.payload.tokens]
        dtype = self.pipeline.model.config.dtype
        if wanted == ("embedding",):

            def embed(part: list[list[int]]) -> list[Array]:
                return self.embedder.embed_tokens(
                    part, given["pooling"], normalize=given["normalize"]
                )

            width = self.embedder.model.config.width
            vectors = _in_parts(embed, rows, is_wanted)
            return [{"embedding": part} for part in _stacks(vectors, (width,), jobs, dtype)]
        if isinstance(self.pipeline, FillMask):
            fill = functools.partial(self.pipeline.fill_tokens, top=given["top"])
            return self._guesses(_in_parts(fill, rows, is_wanted), given["top"], jobs)
        assert isinstance(self.pipeline, TextClassifier)
        labels = self.pipeline.labels
        found = _in_parts(self.pipeline.token_probabilities, rows, is_wanted)
        parts = _stacks(found, (max(1, len(labels)),), jobs, dtype)
        if not labels:
            return [{"prediction": part[:, 0]} for part in parts]
        names = np.array(labels, object)
        both = [{"label": names[part.argmax(axis=1)], "probabilities": part} for part in parts]
        return [{name: outputs[name] for name in wanted} for outputs in both]

    def _guesses(
        self, texts: Sequence[list[list[Guess]]], top: int, jobs: Sequence[Job]
    ) -> list[Outputs]:
        """Return the outputs of jobs, given the guesses for each mask of each text."""
        wanted, found = jobs[0].key[0], iter(texts)
        dtype = self.pipeline.model.config.dtype
        results = []
        for job in jobs:
            shape = (job.rows, job.payload.masks, top)
            tokens, chances = np.empty(shape, object), np.empty(shape, dtype)
            for text in range(job.rows):
                for mask, guesses in enumerate(next(found)):
                    tokens[text, mask] = [guess.token for guess in guesses]
                    chances[text, mask] = [guess.probability for guess in guesses]
            outputs = {"tokens": tokens, "probabilities": chances}
            results.append({name: outputs[name] for name in wanted})
        return results

    def warm(self) -> None:
        """Compile kernels, or read them."""
        warmup(self.pipeline.model)

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return int(self.pipeline.model.nbytes)


def served(model: Any, max_outputs: int) -> ServedModel:
    """Return the served model of a layer, a predictor, an estimator or a pipeline.

    Raises
    ------
    ArgumentTypeError
        If it is none of these.
    """
    if hasattr(model, "to_predictor"):
        model = model.to_predictor()
    if isinstance(model, Predictor):
        return PredictorModel(model, max_outputs)
    if isinstance(model, FillMask | TextClassifier | TextEmbedder):
        return TextModel(model, max_outputs)
    if isinstance(model, Layer) and hasattr(model.config, "multiply_adds"):
        return LayerModel(model, max_outputs)
    raise ArgumentTypeError(
        "argument 'models' must hold paths, layers, predictors, fitted estimators or pipelines of "
        f"texts, got {describe(model)}"
    )


def open_served(path: str | os.PathLike[str], max_outputs: int) -> ServedModel:
    """Return the served model in a file of a layer or predictor, or in the folder of a text model.

    Raises
    ------
    CheckpointError
        If there is no such model.
    MissingExtraError
        If a text model needs a package that is not installed.
    OSError
        If it cannot be read.
    """
    if not os.path.isdir(path):
        layer, predictor = load_model(path)
        return served(layer if predictor is None else predictor, max_outputs)
    if not os.path.exists(os.path.join(path, CONFIG_FILE)):
        raise CheckpointError(
            f"folder '{os.fsdecode(path)}' must contain a model of texts, got no '{CONFIG_FILE}' "
            "in it"
        )
    return TextModel(open_pipeline(path), max_outputs)


def _in_parts(
    compute: Callable[[list[list[int]]], list[Any]], rows: list[list[int]], is_wanted: Wanted
) -> list[Any]:
    """Return a result for each row of tokens, as long as somebody waits for them."""
    results: list[Any] = []
    for part in _parts(rows):
        if not is_wanted():
            raise AbandonedError
        results += compute(part)
    return results


def _parts(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    """Yield rows of tokens in parts, none of which is large unless a row is."""
    part: list[list[int]] = []
    tokens = 0
    for row in rows:
        if part and tokens + len(row) > PART_TOKENS:
            yield part
            part, tokens = [], 0
        part.append(row)
        tokens += len(row)
    if part:
        yield part


def _text_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a request about texts."""
    options = {
        "top": parameters.get("top", 5),
        "pooling": parameters.get("pooling"),
        "normalize": parameters.get("normalize"),
        "truncate": parameters.get("truncate", False),
    }
    if type(options["top"]) is not int or not 1 <= options["top"] <= MAX_TOP:
        raise RequestError(f"parameter 'top' must be 1 to {MAX_TOP}, got {options['top']!r:.80}")
    if options["pooling"] not in (None, *POOLINGS):
        raise RequestError(
            f"parameter 'pooling' must be {' or '.join(POOLINGS)}, got {options['pooling']!r:.80}"
        )
    for name in ("normalize", "truncate"):
        if type(options[name]) is not bool and (name, options[name]) != ("normalize", None):
            raise RequestError(
                f"parameter '{name}' must be true or false, got {options[name]!r:.80}"
            )
    return options


def _datatype(config: LayerConfig | Any) -> str:
    """Return the datatype of a model's numbers."""
    return "FP64" if config.dtype == "float64" else "FP32"


def _key(layer: Any) -> tuple[Any, ...]:
    """Return what the keys of a layer's jobs have in common: none if its rows need to be alone."""
    together = kernels.selection().compiles or not isinstance(layer, DenseFeedForward)
    return () if together else (object(),)


def _rows(x: Array, width: int) -> Array:
    """Return an input of rows of numbers, after a check."""
    if x.dtype.kind not in "iuf" or x.ndim != 2 or x.shape[1] != width:
        raise RequestError(
            f"input 'x' must be numbers of shape (rows, {width}), got {datatype_of(x)} of shape "
            f"{list(x.shape)}"
        )
    return x


def _together(arrays: Sequence[Array]) -> Array:
    """Return the rows of all arrays in one array."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _apart(array: Array, jobs: Sequence[Job]) -> list[Array]:
    """Return the rows of each job."""
    if len(jobs) == 1:
        return [array]
    parts, start = [], 0
    for job in jobs:
        parts.append(array[start : start + job.rows])
        start += job.rows
    return parts


def _stacks(
    vectors: Sequence[Array], shape: tuple[int, ...], jobs: Sequence[Job], dtype: str
) -> list[Array]:
    """Return the vectors of each job's texts in one array."""
    array = np.stack(vectors) if len(vectors) else np.empty((0, *shape), dtype)
    return _apart(array, jobs)
