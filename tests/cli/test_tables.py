"""Tables as they come: trained on, predicted, evaluated and explained by commands."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas
import pytest

import fffcpu
import fffcpu.pipelines
from fffcpu import Predictor
from fffcpu.cli.support import candidates
from fffcpu.sklearn import FFFRegressor
from fffcpu.training.trainer import Interrupted

pytestmark = pytest.mark.slow  # trains: without compiled kernels, for minutes

ROWS = 400
RNG = np.random.default_rng(0)
QUICK = ["--epochs", "4"]


def people():
    """A table with every kind of column, and a target that depends on most of them."""
    rng = np.random.default_rng(1)
    colour = rng.choice(["red", "green", "blue"], ROWS)
    age = rng.integers(18, 80, ROWS).astype(float)
    age[::9] = np.nan
    day = pandas.Timestamp("2020-01-01") + pandas.to_timedelta(rng.integers(0, 700, ROWS), "D")
    price = np.where(colour == "red", 50, 10) + np.nan_to_num(age, nan=40) + rng.normal(0, 1, ROWS)
    return pandas.DataFrame(
        {
            "id": [f"p{k}" for k in range(ROWS)],
            "colour": colour,
            "age": age,
            "member": rng.random(ROWS) < 0.5,
            "day": day.strftime("%Y-%m-%d"),
            "price": price.round(3),
        }
    )


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "people.csv"
    people().to_csv(path, index=False)
    return path


@pytest.fixture
def model(table, command, tmp_path):
    out = tmp_path / "model"
    status, _, told = command("train", table, "--target", "price", "--out", out, *QUICK)
    assert status == 0, told
    return out


def test_a_table_is_taken_as_it_comes(table, command, tmp_path):
    out = tmp_path / "model"
    options = ["--target", "price", "--out", out, "--epochs", "20", "--batch-size", "16"]
    status, printed, told = command("train", table, *options)
    assert status == 0
    assert (
        "400 rows of 4 columns: 2 of numbers, 1 of categories, 1 of dates; 13 inputs of the" in told
    )
    assert "column 'id' is left out: it seems to be an identifier" in told
    assert "target 'price': regression, " in told
    assert "(pass --task classification to change this)" in told
    assert float(printed.split()[-1]) > 0.9


def test_what_is_reported_is_that_of_the_file(table, command, tmp_path):
    out = tmp_path / "model"
    command("train", table, "--target", "price", "--out", out, *QUICK, "--test", table)
    status, printed, _ = command("evaluate", out, table, "--json")
    assert status == 0
    evaluated = json.loads(printed)
    status, printed, _ = command(
        *("train", table, "--target", "price", "--out", out, *QUICK),
        *("--test", table, "--overwrite", "--json"),
    )
    assert json.loads(printed)["test"]["r2"] == pytest.approx(evaluated["r2"], rel=1e-6)


def test_predictions_are_those_of_frames_in_any_order(model, table, command, tmp_path):
    frame = people()
    expected = Predictor.load(model).predict(frame)
    shuffled = frame[frame.columns[::-1]].rename(columns=lambda name: f" {name} ")
    assert np.array_equal(Predictor.load(model).predict(shuffled), expected)
    status, printed, told = command("predict", model, table)
    assert status == 0
    assert told.startswith("400 rows in ")
    lines = printed.splitlines()
    assert lines[0] == "price"
    assert np.array_equal(np.array(lines[1:], np.float32), expected)
    out = tmp_path / "y.npy"
    assert command("predict", model, table, "--out", out, "--rows", 37)[0] == 0
    assert np.array_equal(np.load(out), expected)


def test_identifiers_and_the_input_stand_beside_predictions(model, table, command):
    _, printed, _ = command("predict", model, table, "--id", "id,colour", "--rows", 100)
    records = list(csv.DictReader(io.StringIO(printed)))
    assert list(records[0]) == ["id", "colour", "price"]
    assert [record["id"] for record in records] == people()["id"].tolist()
    _, printed, _ = command("predict", model, table, "--beside")
    head, first = printed.splitlines()[:2]
    assert head == f"{table.read_text().splitlines()[0]},predicted price"
    assert first.startswith(table.read_text().splitlines()[1] + ",")


def test_predictions_are_explained_by_the_rows_that_share_their_leaves(model, table, command):
    _, printed, _ = command("predict", model, table, "--explain")
    records = list(csv.DictReader(io.StringIO(printed)))
    assert len(records[0]) == 1 + 3 * 4
    predictor = Predictor.load(model)
    outcomes = predictor.explain(people())
    for record, outcome in zip(records, outcomes[2].tolist(), strict=True):
        assert record["tree 2 rows"] == str(int(outcome[0]))
        mean = record["tree 2 targets"].partition(" ")[0]
        assert outcome[0] == 0 or float(mean) == pytest.approx(outcome[1], rel=1e-4)
    total = {record["tree 0 leaf"]: int(record["tree 0 rows"]) for record in records}
    assert sum(total.values()) == pytest.approx(360, abs=10)


def test_values_that_training_did_not_see_are_counted_and_told(model, command, tmp_path):
    frame = people()
    frame.loc[:2, "colour"] = ["mauve", "pink", "mauve"]
    frame["member"] = frame["member"].astype(object)
    frame.loc[5:9, "member"] = ""
    path = tmp_path / "new.csv"
    frame.to_csv(path, index=False)
    status, printed, told = command("predict", model, path)
    assert status == 0
    assert len(printed.splitlines()) == ROWS + 1
    assert "'colour': 3 rows have unknown categories: 'mauve', 'pink'" in told
    assert "'member': 5 rows have no value, though all had one in training" in told
    _, _, told = command("predict", model, path, "--json")
    assert json.loads(told.splitlines()[-1])["unknown"] == {"colour": 3, "member": 5}


def test_a_model_is_replaced_only_on_request(model, table, command):
    before = model.read_bytes()
    again = ["train", table, "--target", "price", "--out", model, *QUICK, "--seed", "9"]
    status, _, told = command(*again)
    assert status == 1
    assert "--overwrite replaces it" in told
    assert model.read_bytes() == before
    assert command(*again, "--overwrite")[0] == 0
    assert model.read_bytes() != before


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--target", "prise"], "must have a column 'prise', got"),
        (["--target", "prise"], "did you mean 'price'?"),
        (["--target", "price", "--drop", "colours"], "did you mean 'colour'?"),
        (["--target", "price", "--columns", "age,colur"], "must have a column 'colur'"),
        (["--target", "price", "--separator", ";"], "separated by ',': pass --separator ','"),
        (["--target", "price", "--layer", "auto", "--resume"], "--resume"),
        (["--target", "price", "--layer", "auto", "--validation", "0"], "--validation"),
        (["--target", "price", "--layer", "auto", "--width", "16"], "argument '--width' must be"),
        (["--target", "price", "--layer", "auto", "--leaf-width", "8"], "'--leaf-width' must be"),
        (
            ["--target", "price", "--layer", "auto", "--optimizer", "local-adam"],
            "must not be local for --layer auto, which trains dense layers too, got local-adam",
        ),
        (["--target", "Price"], "did you mean 'price'?"),
        (["--target", "price", "--category", "price"], "got 'price', which is the target or left"),
        (["--target", "price", "--category", "age", "--drop", "age"], "got 'age', which is the"),
        (["--target", "price", "--drop", "price"], "('price'): must be a target or dropped, got"),
    ],
)
def test_wrong_options_lead_out(table, command, tmp_path, options, what):
    status, _, told = command("train", table, "--out", tmp_path / "m", *options)
    assert status == 1
    assert what in told


def test_columns_are_chosen_and_dropped(table, command, tmp_path):
    out = tmp_path / "m"
    options = ["train", table, "--target", "price", "--out", out, *QUICK, "--overwrite"]
    command(*options, "--drop", "day,id,member")
    assert Predictor.load(out).schema.features == ("colour", "age")
    command(*options, "--columns", "age, member")
    assert Predictor.load(out).schema.features == ("age", "member")
    command(*options, "--columns", "age,member", "--category", "age")
    columns = Predictor.load(out).schema.columns
    assert [column.kind for column in columns] == ["category", "number"]


def test_rows_without_a_target_are_left_out_on_request(table, command, tmp_path):
    frame = people()
    frame.loc[::4, "price"] = np.nan
    frame.to_csv(table, index=False)
    options = ["train", table, "--target", "price", "--out", tmp_path / "m", *QUICK]
    status, _, told = command(*options)
    assert status == 1
    assert "line 2, column 6 ('price'): must have a target, got an empty field; --drop-mis" in told
    status, _, told = command(*options, "--drop-missing")
    assert status == 0
    assert "300 rows" in told
    assert command("evaluate", tmp_path / "m", table)[0] == 1
    status, printed, _ = command("evaluate", tmp_path / "m", table, "--drop-missing")
    assert status == 0
    assert "300 rows" in printed


def test_other_separators_and_tab_files(command, tmp_path):
    people().to_csv(tmp_path / "a.csv", index=False, sep=";")
    people().to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    models = []
    for name, options in (("a.csv", ["--separator", ";"]), ("a.tsv", [])):
        out = tmp_path / f"{name}.model"
        arguments = ["--target", "price", "--out", out, *QUICK, *options]
        assert command("train", tmp_path / name, *arguments)[0] == 0
        assert command("predict", out, tmp_path / name, *options)[0] == 0
        models.append(out.read_bytes())
    assert models[0] == models[1]


@pytest.mark.parametrize("layer", ["leaf", "dense"])
def test_other_layers_take_such_tables_too(table, command, tmp_path, layer):
    out = tmp_path / "m"
    options = ["--target", "price", "--out", out, *QUICK, "--layer", layer, "--depth", "2"]
    assert command("train", table, *options)[0] == 0
    assert command("predict", out, table)[0] == 0
    status, _, told = command("predict", out, table, "--explain")
    assert status == (0 if layer == "leaf" else 1)
    assert layer == "leaf" or "has no statistics of training rows" in told


def test_layers_are_compared_and_the_better_one_is_saved(table, command, tmp_path):
    out = tmp_path / "m"
    options = ["--target", "price", "--out", out, *QUICK, "--layer", "auto"]
    status, _, told = command("train", table, *options)
    assert status == 0
    lines = told.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("layer"))
    names = [line.split("  ")[0] for line in lines[start + 1 :]]
    assert names[:3] == ["fast", "dense, 20 neurons", "dense, 60 neurons"]
    (saved,) = [line for line in lines[start + 1 :] if line.endswith("saved")]
    kind = "FastFeedForward" if saved.startswith("fast") else "DenseFeedForward"
    assert fffcpu.load(out).config.kind == kind


def test_an_interrupted_comparison_is_started_again(table, command, tmp_path, monkeypatch):
    def interrupt(*args, **options):
        raise Interrupted(3, None)

    monkeypatch.setattr(candidates, "fit", interrupt)
    options = ["--target", "price", "--out", tmp_path / "m", "--layer", "auto"]
    _, _, told = command("train", table, *options)
    assert "nothing was saved; run the same command to start again" in told
    assert "--resume" not in told


def test_a_comparison_has_no_history(table, command, tmp_path):
    options = ["--target", "price", "--out", tmp_path / "m", "--layer", "auto", "--epochs", "1"]
    _, printed, _ = command("train", table, *options, "--json")
    assert json.loads(printed)["history"] is None
    assert not list(tmp_path.glob("*.training"))


@pytest.mark.parametrize("option", ["--columns", "--drop", "--category"])
def test_columns_of_arrays_have_no_names(command, tmp_path, option):
    np.save(tmp_path / "x.npy", np.zeros((9, 3)))
    np.save(tmp_path / "y.npy", np.arange(9.0))
    options = ["--target", tmp_path / "y.npy", "--out", tmp_path / "m", option, "a,b"]
    status, _, told = command("train", tmp_path / "x.npy", *options)
    assert status == 1
    assert f"argument '{option}' must be left out for a file without names of columns" in told


def test_numbers_and_dates_in_other_forms_are_reported(command, tmp_path):
    path, size = tmp_path / "a.csv", 400
    tenths = [f"{k // 1000},{k % 1000:03d}" for k in range(size)]
    frame = pandas.DataFrame(
        {
            "all": tenths,
            "few": [tenths[k % 30] for k in range(size)],
            "day": [f"{k % 28 + 1}.01.2013" for k in range(size)],
            "kind": ["1,5", "2,5"] * (size // 2),
            "colour": ["red", "blue"] * (size // 2),
            "y": RNG.normal(size=size),
        }
    )
    frame.to_csv(path, sep=";", index=False)
    options = ["--target", "y", "--out", tmp_path / "m", "--separator", ";", "--epochs", "1"]
    status, _, told = command("train", path, *options, "--category", "kind")
    assert status == 0, told
    lines = [line for line in told.splitlines() if line.startswith("column ")]
    comma = "looks like numbers with a decimal comma: write a point"
    left_out = "is left out: it seems to be an identifier: 400 different texts in 400 rows"
    order = "looks like dates in another order: write 2013-01-31"
    assert lines == [
        f"column 'all' {left_out}; it {comma}",
        f"column 'few' is taken as texts, but it {comma}",
        f"column 'day' is taken as texts, but it {order}",
    ]
    _, _, told = command("train", path, *options[:1], "kind", *options[2:], "--overwrite")
    assert f"column 'kind' is taken as texts, but it {comma}" in told


# --- Files made from others -----------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_quantized_models_explain_too(model, table, command, tmp_path, weights):
    small = tmp_path / "small"
    assert command("quantize", model, small, "--weights", weights)[0] == 0
    status, printed, told = command("predict", small, table, "--explain")
    assert status == 0, told
    assert len(printed.splitlines()) == ROWS + 1
    assert Predictor.load(small).routes.to_dict() == Predictor.load(model).routes.to_dict()


def test_converted_models_lose_what_their_columns_hold(model, table, command, tmp_path):
    out, plain = tmp_path / "published.safetensors", tmp_path / "plain.safetensors"
    status, _, told = command("convert", model, out, "--to", "ultrafastbert")
    assert status == 1
    assert told.endswith("train the layer with two_sided=False (--no-two-sided)\n")
    options = ("--target", "price", "--epochs", "1", "--no-two-sided")
    assert command("train", table, "--out", plain, *options)[0] == 0
    status, printed, told = command("convert", plain, out, "--to", "ultrafastbert")
    assert status == 0, told
    assert "columns: categories, dates, filled values, limits and exact scaling are" in printed
    assert "the published layer takes the 13 inputs that the columns become" in printed


# --- Columns and targets that are large compared with their changes -------------------------------


@pytest.mark.parametrize(
    ("layer", "shift"), [("fast", 0.0), ("fast", 1.7e9), ("leaf", 1.7e9), ("dense", 0.0)]
)
def test_times_in_seconds_are_learned_and_predicted(command, tmp_path, layer, shift):
    t = 1.7e9 + 0.1 * np.arange(3000)
    y = np.sin((t - 1.7e9) / 60) + shift
    path, out = tmp_path / "t.csv", tmp_path / "m"
    pandas.DataFrame({"t": t, "y": y}).to_csv(path, index=False)
    options = ["--target", "y", "--task", "regression", "--out", out, "--epochs", "30"]
    more = (
        ["--hardening", "0.01", "--depth", "3", "--lr", "0.003"]
        if layer == "leaf"
        else ["--width", "64"]
    )
    status, printed, told = command("train", path, *options, "--layer", layer, *more)
    assert status == 0, told
    least = 0.75 if layer == "leaf" else 0.99
    assert float(printed.split()[-1]) > least
    predictor = Predictor.load(out)
    found = predictor.predict({"t": t})
    assert 1 - np.square(found - y).mean() / y.var() > least
    assert found.dtype == (np.float64 if shift else np.float32)
    _, printed, _ = command("predict", out, path)
    assert np.array_equal(np.array(printed.splitlines()[1:], found.dtype), found)
    _, printed, _ = command("evaluate", out, path, "--json")
    assert json.loads(printed)["r2"] > least


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [600, 1100])  # float64 in one batch; float32 in many
def test_an_estimator_learns_times_in_seconds(tmp_path, rows, dtype):
    # 2**17 seconds: half of these times are exact in float32, too.
    t = (1.7e9 + 128.0 * np.arange(rows))[:, np.newaxis].astype(dtype)
    y = np.sin(np.arange(rows) / rows * 5) + 1.7e9
    learned = FFFRegressor(random_state=0, max_iter=80).fit(t, y)
    assert learned.score(t, y) > 0.99
    predictor = learned.to_predictor()
    predictor.save(tmp_path / "model")
    loaded = Predictor.load(tmp_path / "model")
    assert np.array_equal(loaded.predict(t), learned.predict(t))
    again = FFFRegressor.from_predictor(loaded)
    assert np.array_equal(again.predict(t), learned.predict(t))
    assert again.set_params(warm_start=True, max_iter=3).fit(t, y).score(t, y) > 0.9


def test_a_number_far_from_all_others_counts_as_the_nearest(command, tmp_path):
    x = np.linspace(0, 1, 300)
    path, out = tmp_path / "a.csv", tmp_path / "m"
    pandas.DataFrame({"x": x, "y": 3 * x + 0.5}).to_csv(path, index=False)
    options = ["--target", "y", "--out", out, *QUICK]
    command("train", path, *options)
    predict = Predictor.load(out).predict
    assert predict({"x": [1e6]}) == predict({"x": [x.max()]})
    command("train", path, *options, "--no-clip", "--overwrite")
    predict = Predictor.load(out).predict
    assert abs(predict({"x": [1e6]})[0]) > 1000


def test_targets_without_bounds_are_named(command, tmp_path):
    path = tmp_path / "a.csv"
    pandas.DataFrame({"x": RNG.normal(size=50), "y": 1e40 * RNG.normal(size=50)}).to_csv(
        path, index=False
    )
    status, _, told = command("train", path, "--target", "y", "--out", tmp_path / "m")
    assert status == 1
    assert "target 'y' must hold numbers whose standard deviation" in told
    with pytest.raises(ValueError, match="argument 'y' must hold numbers whose standard deviation"):
        FFFRegressor().fit(RNG.normal(size=(50, 2)), 1e40 * RNG.normal(size=50))


@pytest.mark.parametrize("factor", [1e300, 1e-300, 1e35, 1e-35, 1e100])
def test_columns_of_any_size_are_learned_or_named(command, tmp_path, factor):
    x = np.random.default_rng(0).normal(size=300)
    path, out = tmp_path / "a.csv", tmp_path / "m"
    pandas.DataFrame({"x": x * factor, "z": x, "y": np.abs(x)}).to_csv(path, index=False)
    options = ["--target", "y", "--out", out, "--drop", "z", *QUICK]
    status, printed, told = command("train", path, *options)
    if not 1e-150 < factor < 1e150:
        assert status == 1
        assert "column 'x' of the rows to train on must hold finite numbers whose diff" in told
        return
    assert status == 0, told
    _, plain, _ = command("train", path, *options, "--overwrite", "--drop", "x")
    assert float(printed.split()[-1]) == pytest.approx(float(plain.split()[-1]), abs=0.01)
    assert all(np.isfinite(array).all() for array in fffcpu.load(out).params.values())


# --- info -----------------------------------------------------------------------------------------


def test_info_shows_task_columns_and_classes(model, table, command, tmp_path):
    _, printed, _ = command("info", model)
    lines = printed.splitlines()
    assert lines[1].split() == ["task", "regression", "of", "price"]
    assert lines[2].split(maxsplit=1) == ["numbers", "'age', 'member'"]
    assert lines[3].split(maxsplit=1) == ["categories", "'colour'"]
    assert lines[4].split(maxsplit=1) == ["dates", "'day'"]
    _, printed, _ = command("info", model, "--json")
    columns = json.loads(printed)["schema"]["columns"]
    assert columns[0]["inputs"] == ["colour=blue", "colour=green", "colour=red"]
    out = tmp_path / "classes"
    options = ["--target", "colour", "--out", out, *QUICK]
    assert command("train", table, *options)[0] == 0
    _, printed, _ = command("info", out)
    assert "  classes        'blue', 'green', 'red'\n" in printed


def test_info_describes_folders_of_models(command):
    folder = fffcpu.pipelines.default_model_folder()
    status, printed, _ = command("info", folder)
    assert status == 0
    assert "kind              FastBertForMaskedLM" in printed
    _, printed, _ = command("info", folder, "--json")
    description = json.loads(printed)
    numbers = (np.prod(array["shape"]) for array in description["parameters"])
    assert description["numbers"] == sum(numbers)


# --- What the model cannot take -------------------------------------------------------------------


def test_numbers_without_names_are_not_taken_for_categories(model, command, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4)))
    np.save(tmp_path / "y.npy", np.zeros(3))
    for arguments in (
        ["predict", model, tmp_path / "x.npy"],
        ["inspect", model, tmp_path / "x.npy"],
        ["evaluate", model, tmp_path / "x.npy", "--target", tmp_path / "y.npy"],
    ):
        status, _, told = command(*arguments)
        assert status == 1
        assert "must have columns with names" in told
        assert "the model's column 'colour' is a category" in told


@pytest.mark.parametrize("rows", ["0", "-3"])
def test_blocks_have_rows(model, table, command, rows):
    status, printed, told = command("predict", model, table, "--rows", rows)
    assert (status, printed) == (1, "")
    assert "'rows' must be an integer of at least 1" in told


@pytest.mark.parametrize("options", [[], ["--explain"], ["--beside"]])
def test_a_table_without_rows_gives_a_header(model, command, tmp_path, options):
    (tmp_path / "head.csv").write_text("id,colour,age,member,day,price\n")
    status, printed, _ = command("predict", model, tmp_path / "head.csv", *options)
    assert status == 0
    assert len(printed.splitlines()) == 1


def test_a_class_that_is_called_na_is_kept_where_classes_are_known(command, tmp_path):
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"x": rng.normal(size=90), "y": ["NA", "1", "2"] * 30})
    path, out = tmp_path / "a.csv", tmp_path / "m"
    frame.to_csv(path, index=False)
    options = ["--target", "y", "--task", "classification", "--out", out, *QUICK]
    status, _, told = command("train", path, *options, "--test", path)
    assert status == 0, told
    assert Predictor.load(out).schema.classes == ("1", "2", "NA")
    status, printed, _ = command("evaluate", out, path, "--json")
    assert status == 0
    assert json.loads(printed)["rows"] == 90


def test_numbers_that_are_not_finite_are_errors_everywhere(command, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(60) % 2)
    assert command("train", tmp_path / "a.npz", "--out", tmp_path / "m", *QUICK)[0] == 0
    predictor = Predictor.load(tmp_path / "m")
    for wrong in (np.nan, np.inf, 1e300):
        rows = x[:2].astype(np.float64)
        rows[1, 2] = wrong
        for bad in (rows, rows.tolist(), pandas.DataFrame(rows)):
            with pytest.raises(ValueError, match=r"got (nan|inf|1e\+300) at index \(1, 2\)"):
                predictor.predict(bad)
    (tmp_path / "b.csv").write_text("a,b,c\n1,2,1e300\n")
    status, _, told = command("predict", tmp_path / "m", tmp_path / "b.csv")
    assert status == 1
    assert "1e+300" in told


def test_figures_of_several_targets_are_their_own(command, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    frame = pandas.DataFrame({"x": x, "big": 1e5 * rng.normal(size=200), "same": 2 * x + 0.5})
    path, out = tmp_path / "a.csv", tmp_path / "m"
    frame.to_csv(path, index=False)
    options = ["--target", "big,same", "--out", out, "--epochs", "20"]
    assert command("train", path, *options)[0] == 0
    _, printed, _ = command("evaluate", out, path, "--json")
    targets = json.loads(printed)["targets"]
    assert list(targets) == ["big", "same"]
    assert targets["same"]["r2"] > 0.7 > 0.5 > targets["big"]["r2"]
    assert targets["same"]["rmse"] < 2 < 10_000 < targets["big"]["rmse"]
    _, printed, _ = command("evaluate", out, path)
    assert "  same: rmse " in printed


def test_models_without_names_take_columns_by_position(command, tmp_path):
    x = np.random.default_rng(0).normal(loc=[0, 1e9], size=(90, 2))
    np.savez(tmp_path / "a.npz", x=x, y=x[:, 0] + x[:, 1] - 1e9 + 0.25)
    out = tmp_path / "m"
    assert command("train", tmp_path / "a.npz", "--out", out, *QUICK)[0] == 0
    predictor = Predictor.load(out)
    assert predictor.schema.columns is not None
    frame = pandas.DataFrame(x, columns=["u", "v"])
    assert np.array_equal(predictor.predict(frame), predictor.predict(x))
    frame.to_csv(tmp_path / "b.csv", index=False)
    status, printed, _ = command("predict", out, tmp_path / "b.csv")
    assert status == 0
    assert np.array_equal(np.array(printed.splitlines()[1:], np.float32), predictor.predict(x))


def test_a_predictor_logs_what_it_does_not_know(model, caplog):
    frame = people()
    frame.loc[0, "colour"] = "mauve"
    Predictor.load(model).predict(frame)
    assert "number of unknown values: 1, such as 'mauve' in column 'colour'" in caplog.text
