"""The report of a distillation: what a student was made of, and how well it follows its teacher.

A student's folder holds it as ``distillation.json``, next to ``config.json``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fffcpu.errors import CheckpointError, describe
from fffcpu.recipes.distillation import Distilled, DistillSettings, Stage, weights_checksum
from fffcpu.recipes.distillation_objectives import Distillable
from fffcpu.system.files import named_errors, read_json

__all__ = ["REPORT_FILE", "format_report", "make_report", "read_report"]

REPORT_FILE = "distillation.json"

VERSION = 1
"""Version of the format."""

_RESULTS = ("hidden_r2", "similarity", "cosine", "agreement", "output_r2")
"""Figures of the last evaluation that a report has at its top."""

_FIGURES = ("r2", *_RESULTS)
"""Figures of an evaluation that a report has."""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_figure(value: Any) -> bool:
    return value is None or _is_number(value)


_ENTRIES: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "teacher": lambda value: isinstance(value, dict) and isinstance(value.get("name"), str),
        "student": lambda value: isinstance(value, dict),
        **dict.fromkeys(("texts", "tokens_seen", "seconds"), _is_number),
        **dict.fromkeys(("similarity", "cosine", "agreement", "output_r2"), _is_figure),
    }
)
"""The entries that readers depend on, and a check of each."""


def make_report(
    teacher: Distillable, name: str, done: Distilled, settings: DistillSettings, version: str
) -> dict[str, Any]:
    """Return the report of a distillation, in plain JSON values.

    Parameters
    ----------
    teacher : BertEncoder or BertForSequenceClassification
        The teacher.
    name : str
        Name of the teacher, or its folder.
    done : Distilled
        The result.
    settings : DistillSettings
        The settings.
    version : str
        Version of fffcpu.

    Returns
    -------
    dict
        ``teacher`` and ``student`` (sizes, ``parameters`` and ``weights``, a checksum), ``texts``
        and ``tokens`` to learn from, ``held_out`` texts, ``tokens_seen`` by both stages,
        ``seconds``, ``r2`` of each feedforward; the final ``hidden_r2``, ``similarity``,
        ``cosine``, ``agreement`` and ``output_r2`` on the texts held out, None where there is no
        such figure; ``stages``, each with ``steps``, ``tokens``, ``seconds`` and its
        ``evaluations`` over time; ``settings``; ``fffcpu``, the version.
    """
    stages = {"layers": _describe_stage(done.layers), "encoder": _describe_stage(done.encoder)}
    held_out, training = done.texts.held_out, done.texts.training
    last = _last(done.encoder)
    return {
        "version": VERSION,
        "fffcpu": version,
        "teacher": {"name": name, **_describe_model(teacher)},
        "student": _describe_model(done.model),
        "texts": len(training.rows),
        "tokens": training.tokens,
        "held_out": 0 if held_out is None else len(held_out.rows),
        "tokens_seen": sum(stage["tokens"] for stage in stages.values()),
        "seconds": sum(stage["seconds"] for stage in stages.values()),
        "r2": _r2_of_layers(done.layers, teacher.config.layers),
        **{figure: last.get(figure) for figure in _RESULTS},
        "stages": stages,
        "settings": dataclasses.asdict(settings),
    }


def format_report(report: Mapping[str, Any]) -> str:
    """Return a report as the text of its file."""
    return f"{json.dumps(report, indent=2)}\n"


def read_report(folder: str | os.PathLike[str], model: Any) -> dict[str, Any] | None:
    """Return the report in a folder.

    Parameters
    ----------
    folder : path
        The folder of a model.
    model : Model
        The model in it.

    Returns
    -------
    dict or None
        None if there is no report, or it is that of a model that was replaced since, or one that a
        later version wrote.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    path = Path(folder) / REPORT_FILE
    if not path.exists():
        return None
    report = read_json(path)
    if not isinstance(report, dict) or report.get("version") != VERSION:
        return None
    with named_errors(path):
        for name, is_right in _ENTRIES.items():
            if not is_right(report.get(name)):
                raise CheckpointError(
                    f"is damaged: its entry '{name}' must be that of a distillation, "
                    f"got {describe(report.get(name))}"
                )
    return report if report["student"].get("weights") == weights_checksum(model) else None


def _describe_model(model: Distillable) -> dict[str, Any]:
    """Return the sizes of a model, and what identifies its weights."""
    config = model.config
    sizes: dict[str, Any] = {"layers": config.layers, "width": config.width}
    if config.feedforward == "fff":
        sizes |= {"trees": config.feedforward_size, "depth": config.depth}
        sizes["two_sided"] = config.two_sided
    else:
        sizes["neurons"] = config.feedforward_size
    return sizes | {"parameters": model.params.count, "weights": weights_checksum(model)}


def _describe_stage(stage: Stage) -> dict[str, Any]:
    """Return what a stage took, and its evaluations over time."""
    last = stage.history[-1] if stage.history else {}
    return {
        "steps": last.get("step", 0),
        "tokens": last.get("tokens", 0),
        "seconds": last.get("seconds", 0.0),
        "evaluations": [
            {name: line[name] for name in ("seconds", "tokens", *_FIGURES) if name in line}
            for line in stage.history
            if any(name in line for name in _FIGURES)
        ],
    }


def _last(stage: Stage) -> dict[str, Any]:
    """Return the last line of a stage's history that has figures, None where not finite."""
    lines = [line for line in stage.history if any(name in line for name in _FIGURES)]
    return lines[-1] if lines else {}


def _r2_of_layers(stage: Stage, layers: int) -> list[float]:
    """Return the last R2 of each feedforward; empty if no text was held out."""
    last = _last(stage)
    return [last[f"r2_{i}"] for i in range(layers) if f"r2_{i}" in last]
