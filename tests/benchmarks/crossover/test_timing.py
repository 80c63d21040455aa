"""Which models are timed."""

from __future__ import annotations

from benchmarks.crossover import models, sets, timing


def test_only_models_that_are_there_are_timed(tmp_path, capsys):
    for folder in ("models", "data"):
        (tmp_path / folder).mkdir()
    sets.data_path(tmp_path, "letters").touch()
    everything = {}
    for data, name in (("letters", "dense-4"), ("letters", "fff-1x3"), ("mnist", "dense-4")):
        settings = {"lr": 0.01, "weight_decay": 0.2}
        run = {"data": data, "model": name, "seed": 0, "settings": settings}
        everything.setdefault(data, {})[name] = [run]
        if name == "dense-4":
            models.model_path(tmp_path, run).touch()
    found = timing.with_files(everything, tmp_path)
    assert {data: list(models) for data, models in found.items()} == {"letters": ["dense-4"]}
    told = capsys.readouterr().err
    assert "letters fff-1x3 left out: no " in told
    assert f"mnist dense-4 left out: no {sets.data_path(tmp_path, 'mnist')}" in told


def test_models_of_a_missing_library_are_not_timed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models, "HAS_LIGHTGBM", False)
    settings = {"learning_rate": 0.1, "lambda_l2": 0.0}
    run = {"data": "letters", "model": "lightgbm-20x8", "seed": 0, "settings": settings}
    path = models.model_path(tmp_path, run)
    path.parent.mkdir()
    path.touch()
    assert timing.with_files({"letters": {"lightgbm-20x8": [run]}}, tmp_path) == {}
    assert capsys.readouterr().err.startswith("LightGBM left out: ")
