"""The report of a distillation: what it holds, and which reports are of a model."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fffcpu.errors import CheckpointError
from fffcpu.recipes.distillation import DistillSettings, distill
from fffcpu.recipes.distillation_report import (
    REPORT_FILE,
    format_report,
    make_report,
    read_report,
)
from tests.support.encoders import rows, teacher

SETTINGS = DistillSettings(
    trees=2, depth=1, epochs=1, batch_tokens=40, evaluations=2, checkpoint_seconds=0.0
)


def report_of(validation=0.2, classes=None, **options):
    """A report, and what it is about."""
    model = teacher(classes=classes)
    done = distill(model, rows(), SETTINGS, validation=validation, **options)
    return make_report(model, "the teacher", done, SETTINGS, "1.2.3"), done


def test_what_a_report_holds():
    report, done = report_of()
    assert report["fffcpu"] == "1.2.3"
    assert report["teacher"]["name"] == "the teacher"
    assert report["teacher"]["neurons"] == 12
    assert (report["student"]["trees"], report["student"]["depth"]) == (2, 1)
    assert report["student"]["parameters"] == done.model.params.count
    assert (report["texts"], report["held_out"]) == (48, 12)
    last = done.encoder.outcome.figures
    for name in ("similarity", "cosine", "hidden_r2"):
        assert report[name] == last[name]
    assert report["r2"] == [done.layers.outcome.figures[f"r2_{i}"] for i in range(2)]
    seen = done.layers.outcome.rows + done.encoder.outcome.rows
    assert report["tokens_seen"] == seen
    assert report["settings"] == dataclasses.asdict(SETTINGS)
    times = [line["seconds"] for line in report["stages"]["encoder"]["evaluations"]]
    assert len(times) > 1
    assert times == sorted(times)
    assert json.loads(format_report(report)) == report


@pytest.mark.parametrize(("classes", "figure"), [(3, "agreement"), (1, "output_r2")])
def test_a_report_of_a_classifier_has_its_figure(classes, figure):
    report, done = report_of(classes=classes)
    figures = {name: report[name] for name in ("agreement", "output_r2")}
    wanted = done.encoder.outcome.figures[figure]
    assert figures == {"agreement": None, "output_r2": None, figure: wanted}
    assert all(figure in line for line in report["stages"]["encoder"]["evaluations"])


def test_a_run_that_was_killed_between_the_stages_has_the_same_report(tmp_path):
    def fail(evaluation):
        if "similarity" in evaluation.figures:
            raise RuntimeError("killed")

    whole, _ = report_of()
    with pytest.raises(RuntimeError, match="killed"):
        report_of(folder=tmp_path, callbacks=[fail])
    resumed, _ = report_of(folder=tmp_path, resume=True)
    for name in ("r2", "similarity", "cosine", "tokens_seen", "texts", "student"):
        assert resumed[name] == whole[name], name


def test_without_texts_held_out_a_report_has_no_figures():
    report, _ = report_of(validation=0.0)
    assert (report["held_out"], report["r2"], report["similarity"]) == (0, [], None)
    assert report["tokens_seen"] > 0


@pytest.fixture
def written(tmp_path):
    """The report, the student, and the file of the report."""
    report, done = report_of()
    (tmp_path / REPORT_FILE).write_text(format_report(report))
    return report, done.model, tmp_path / REPORT_FILE


def test_a_report_is_read(written):
    report, model, path = written
    assert read_report(path.parent, model) == report


def test_a_report_of_a_model_that_was_replaced_is_left_out(written):
    report, model, path = written
    assert read_report(path.parent, teacher()) is None
    path.write_text(json.dumps({**report, "version": 2}))
    assert read_report(path.parent, model) is None
    path.unlink()
    assert read_report(path.parent, model) is None


@pytest.mark.parametrize(
    "wrong",
    [{"teacher": {}}, {"texts": "3"}, {"similarity": "high"}, {"agreement": ""}, {"student": None}],
)
def test_a_damaged_report_is_an_error(wrong, written):
    report, model, path = written
    path.write_text(json.dumps({**report, **wrong}))
    with pytest.raises(CheckpointError, match=f"entry '{next(iter(wrong))}' must be"):
        read_report(path.parent, model)
