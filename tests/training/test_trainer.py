"""The training loop: budgets, evaluations, patience, and that nothing is ever lost."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from fffcpu.checkpoints import safetensors
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError
from fffcpu.training import AdamW, StopTraining, run_folder
from fffcpu.training.run_folder import HISTORY, RunFolder
from fffcpu.training.trainer import Interrupted, StepResult, Trainer, TrainerSettings
from tests.support.paths import PACKAGE, ROOT


class Line:
    """Fits a line to noisy points; the batch and the noise of a step depend on the step."""

    def __init__(self, figures=(), fail_at=None, at_step=None):
        self.params = {"weight": np.zeros(3), "bias": np.zeros(1, np.float32)}
        self.figures = list(figures)
        self.fail_at, self.at_step = fail_at, at_step

    def step(self, moment):
        if self.at_step:
            self.at_step(moment)
        x = np.random.default_rng(moment.step).standard_normal((4, 3))
        noise = moment.rng.standard_normal(4)
        off = x @ self.params["weight"] + self.params["bias"] - (x.sum(axis=1) + 1 + 0.1 * noise)
        loss = float(np.square(off).mean())
        grads = {"weight": 2 * off @ x / 4, "bias": np.array([off.mean() * 2], np.float32)}
        used = np.array([1.0, moment.step])
        loss = float("nan") if moment.step == self.fail_at else loss
        return StepResult(loss, grads, 4, {"weight": used, "bias": used})

    def evaluate(self):
        if not self.figures:
            return {"loss": float(np.square(self.params["weight"] - 1).sum())}
        return {"score": self.figures.pop(0)}


def make(objective=None, folder=None, identity=None, callbacks=(), **options):
    objective = objective or Line()
    options = {"steps": 40, "lr": 0.05, "checkpoint_seconds": 1e9, **options}
    optimizer = AdamW(objective.params, 0.05)
    settings = TrainerSettings(**options)
    rest = {"folder": folder, "identity": identity, "callbacks": callbacks}
    return Trainer(objective, optimizer, settings, **rest, progress=False)


def bits(objective):
    return [array.tobytes() for array in objective.params.values()]


def test_learns():
    objective = Line()
    outcome = make(objective, steps=400).run()
    assert outcome.steps == 400
    assert np.allclose(objective.params["weight"], 1, atol=0.2)
    assert outcome.figures["loss"] < 0.1
    assert not outcome.stopped_early


def test_usage_is_added_up_once_for_names_that_share_it():
    outcome = make(steps=5).run()
    assert {name: counts.tolist() for name, counts in outcome.usage.items()} == {
        "weight": [5.0, 10.0]
    }


def test_the_schedule_sees_the_fraction_of_the_budget():
    seen = []
    make(steps=4, schedule=lambda fraction: seen.append(fraction) or 1.0).run()
    assert seen[:4] == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("shown", [True, False])
def test_each_evaluation_is_a_line_that_stays(shown, capsys):
    objective = Line()
    settings = TrainerSettings(steps=10, lr=0.05, evaluate_every=4, note_every=1)
    trainer = Trainer(objective, AdamW(objective.params, 0.05), settings, progress=shown)
    trainer.run()
    lines = re.findall(r"^.*?step (\d+) of 10, (.*)$", capsys.readouterr().err, re.M)
    assert [int(step) for step, _ in lines] == ([4, 8, 10] if shown else [])
    evaluated = [line for line in trainer.history if "loss" in line]
    assert len(evaluated) == 3
    for (_, line), noted in zip(lines, evaluated, strict=False):
        assert f", loss {noted['loss']:.4f}, " in line


def test_a_budget_in_seconds():
    outcome = make(steps=None, seconds=0.2, evaluate_every=10**9).run()
    assert outcome.steps > 1
    assert 0.2 <= outcome.seconds < 5


def test_gradients_are_clipped(tmp_path):
    make(folder=tmp_path, steps=6, max_norm=0.5, evaluate_every=2).run()
    lines = RunFolder(tmp_path).read_history()
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(line["gradient_norm"] > 0 for line in lines)


def test_stops_for_want_of_progress_and_keeps_the_best():
    snapshots = []
    objective = Line(figures=[0.1, 0.5, 0.5, 0.4, 0.9])
    evaluate = objective.evaluate
    objective.evaluate = lambda: snapshots.append(bits(objective)) or evaluate()
    outcome = make(
        objective,
        evaluate_every=2,
        patience=2,
        watch="score",
        higher_is_better=True,
        keep_best=True,
    ).run()
    assert outcome.stopped_early
    assert outcome.steps == 8
    assert outcome.figures == {"score": 0.5}
    assert bits(objective) == snapshots[1]


def test_lower_may_be_better():
    objective = Line(figures=[0.9, 0.5, 0.6])
    outcome = make(objective, steps=6, evaluate_every=2, watch="score", keep_best=True).run()
    assert outcome.figures == {"score": 0.5}


@pytest.mark.parametrize("stop", [1, 7, 39])
def test_resumes_to_the_bits_of_an_unbroken_run(tmp_path, stop):
    unbroken = Line()
    expected = make(unbroken, evaluate_every=5, folder=tmp_path / "unbroken").run()

    def interrupt(moment):
        if moment.step == stop:
            raise RuntimeError("power cut")

    folder = tmp_path / "broken"
    with pytest.raises(RuntimeError):
        make(Line(at_step=interrupt), evaluate_every=5, folder=folder, checkpoint_seconds=0).run()
    resumed = Line()
    again = make(resumed, evaluate_every=5, folder=folder)
    assert again.resume()
    assert again.step == stop
    found = again.run()
    assert bits(resumed) == bits(unbroken)
    assert found.figures == expected.figures
    assert {name: counts.tolist() for name, counts in found.usage.items()} == {
        name: counts.tolist() for name, counts in expected.usage.items()
    }
    lines, others = (
        [{**line, "seconds": 0} for line in RunFolder(where).read_history()]
        for where in (tmp_path / "unbroken", folder)
    )
    assert lines == others


def test_keeps_the_last_checkpoints(tmp_path):
    make(folder=tmp_path, checkpoint_seconds=0, keep=3, steps=9).run()
    assert [path.name for path in RunFolder(tmp_path).checkpoints()] == [
        f"checkpoint-{step:010d}.safetensors" for step in (9, 8, 7)
    ]


def test_nothing_to_resume_starts_at_the_beginning(tmp_path):
    again = make(folder=tmp_path / "none")
    assert not again.resume()
    assert again.step == 0


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    make(folder=tmp_path, checkpoint_seconds=0, steps=9).run()
    newest, older = RunFolder(tmp_path).checkpoints()
    newest.write_bytes(newest.read_bytes()[:-5])
    again = make(folder=tmp_path)
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert again.resume()
    assert again.step == 8
    older.write_bytes(b"")
    with (
        pytest.raises(CheckpointError, match="no checkpoint that is whole"),
        pytest.warns(RuntimeWarning, match="damaged"),
    ):
        make(folder=tmp_path).resume()


def test_another_run_is_refused(tmp_path):
    make(folder=tmp_path, identity={"depth": 3, "seed": 0}).run()
    assert make(folder=tmp_path, identity={"depth": 3, "seed": 0}).resume()
    with pytest.raises(CheckpointError, match="'depth' was 3 and is 4"):
        make(folder=tmp_path, identity={"depth": 4, "seed": 0}).resume()


def test_former_values_of_an_identity_are_todays(tmp_path):
    make(folder=tmp_path, identity={"layer": "node", "classes": [1], "seed": 0}).run()

    def again(layer, seed=0):
        objective, identity = Line(), {"layer": layer, "classes": [1], "seed": seed}
        return Trainer(
            objective,
            AdamW(objective.params, 0.05),
            TrainerSettings(steps=40, lr=0.05),
            folder=tmp_path,
            identity=identity,
            former_values={"layer": {"node": "fast"}, "classes": {}},
        )

    assert again("fast").resume()
    with pytest.raises(CheckpointError, match=r"run: 'layer' was 'fast' and is 'leaf'$"):
        again("leaf").resume()
    with pytest.raises(CheckpointError, match=r"run: 'seed' was 0 and is 1$"):
        again("fast", seed=1).resume()


def test_other_parameters_are_refused(tmp_path):
    make(folder=tmp_path).run()
    other = Line()
    other.params["weight"] = np.zeros(4)
    with pytest.raises(CheckpointError, match="other parameters"):
        make(other, folder=tmp_path).resume()


def test_a_later_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "STATE_VERSION", 2)
    make(folder=tmp_path).run()
    monkeypatch.setattr(run_folder, "STATE_VERSION", 1)
    with pytest.warns(RuntimeWarning, match="version 2"), pytest.raises(CheckpointError):
        make(folder=tmp_path).resume()


def test_the_history_forgets_what_the_checkpoint_does_not_know(tmp_path):
    make(folder=tmp_path, steps=4, evaluate_every=2).run()
    with open(tmp_path / HISTORY, "a") as file:
        file.write(json.dumps({"step": 6}) + "\nrubbish\n" + '{"step": 3')
    again = make(folder=tmp_path, steps=4, evaluate_every=2)
    again.resume()
    again.run()
    assert [line["step"] for line in RunFolder(tmp_path).read_history()] == [2, 4]


def test_the_trainer_holds_the_history_that_the_folder_does(tmp_path):
    alone = make(steps=6, evaluate_every=2)
    alone.run()
    assert [line["step"] for line in alone.history] == [2, 4, 6]
    make(folder=tmp_path, steps=4, evaluate_every=2).run()
    resumed = make(folder=tmp_path, steps=8, evaluate_every=2)
    resumed.resume()
    resumed.run()
    assert resumed.history == RunFolder(tmp_path).read_history()
    assert [line["step"] for line in resumed.history] == [2, 4, 6, 8]


def test_a_loss_that_is_not_finite_stops_the_run_before_its_step(tmp_path):
    objective, reference = Line(fail_at=3), Line()
    with pytest.raises(FloatingPointError, match="nan at step 3"):
        make(objective).run()
    make(reference, steps=3, schedule=lambda fraction: 1.0).run()
    assert bits(objective) == bits(reference)


class Diverging(Line):
    """A line whose gradient of a step is infinite, although the loss is not."""

    def step(self, moment):
        result = super().step(moment)
        if moment.step == 5:
            result.grads["weight"][1] = np.inf
        return result


@pytest.mark.parametrize("steps", [6, 40])
def test_parameters_that_are_not_finite_are_never_saved(tmp_path, steps):
    run = make(Diverging(), folder=tmp_path, steps=steps, checkpoint_seconds=0)
    with pytest.raises(FloatingPointError, match="'weight' has nan at index 1 after step 6; a sm"):
        run.run()
    newest, *_ = RunFolder(tmp_path).checkpoints()
    assert newest.name == "checkpoint-0000000005.safetensors"
    resumed = make(folder=tmp_path, steps=steps)
    assert resumed.resume()
    assert np.isfinite(resumed.objective.params["weight"]).all()


def test_without_a_folder_the_end_finds_parameters_that_are_not_finite():
    with pytest.raises(FloatingPointError, match="'weight' has nan at index 1 after step 6"):
        make(Diverging(), steps=6).run()


def test_large_parameters_are_finite():
    objective = Line()
    objective.params["weight"][:] = 3e38
    make(objective, steps=1)._check_finite()


def test_notes_that_no_file_can_hold_are_an_error_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "LONGEST_HEADER", (1 << 20) + 2000)
    make(folder=tmp_path / "short", steps=1, identity={"columns": "c" * 1000}).run()
    steps = []
    run = make(Line(at_step=steps.append), tmp_path / "long", identity={"columns": "c" * 2000})
    with pytest.raises(CheckpointError, match="names of columns and classes are part of it"):
        run.run()
    assert not steps
    assert not (tmp_path / "long").exists()


def test_the_gradients_of_a_step_are_gone_before_the_next():
    alive = []

    class Watched(Line):
        def step(self, moment):
            alive.append(sum(one() is not None for one in seen))
            result = super().step(moment)
            seen.append(weakref.ref(result.grads["weight"]))
            return result

    seen = []
    make(Watched(), steps=4).run()
    assert alive == [0, 0, 0, 0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_waits_for_the_step_and_saves(tmp_path, number):
    before = signal.getsignal(number)
    objective = Line(at_step=lambda moment: moment.step == 5 and signal.raise_signal(number))
    with pytest.raises(Interrupted, match="after 6 steps; its state is saved"):
        make(objective, folder=tmp_path).run()
    assert signal.getsignal(number) is before
    resumed, unbroken = Line(), Line()
    again = make(resumed, folder=tmp_path)
    assert again.resume()
    assert again.step == 6
    again.run()
    make(unbroken).run()
    assert bits(resumed) == bits(unbroken)


def test_a_second_interruption_does_not_wait():
    def twice(moment):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        make(Line(at_step=twice)).run()
    assert not isinstance(caught.value, Interrupted)


def test_runs_on_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(make(steps=3).run().steps))
    thread.start()
    thread.join()
    assert found == [3]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": None}, "'steps' or 'seconds'"),
        ({"seconds": 3.0}, "'steps' or 'seconds'"),
        ({"steps": 0}, "'steps'"),
        ({"lr": -1.0}, "'lr'"),
        ({"patience": 0}, "'patience'"),
        ({"keep": 0}, "'keep'"),
        ({"max_norm": -1.0}, "'max_norm'"),
        ({"checkpoint_seconds": -1.0}, "'checkpoint_seconds'"),
        ({"seed": -1}, "'seed'"),
    ],
)
def test_refuses_settings(options, named):
    with pytest.raises(ArgumentError, match=named):
        make(**options)


CHILD = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[3]]
from tests.training.test_trainer import Line, make
import time
objective = Line(at_step=lambda moment: time.sleep(0.002))
run = make(objective, folder=sys.argv[2], checkpoint_seconds=0.005, steps=150, evaluate_every=10)
run.resume()
run.run()
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_costs_nothing_but_time(tmp_path):
    folder, rng = tmp_path / "run", np.random.default_rng(0)
    command = [sys.executable, "-c", CHILD, str(PACKAGE.parent), str(folder), str(ROOT)]
    for _ in range(3):
        child = subprocess.Popen(command)
        while not RunFolder(folder).checkpoints() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        child.wait()
    subprocess.run(command, check=True)
    killed, unbroken = Line(), Line()
    last = make(killed, folder=folder, steps=150, evaluate_every=10)
    assert last.resume()
    assert last.step == 150
    make(unbroken, steps=150, evaluate_every=10).run()
    assert bits(killed) == bits(unbroken)
    assert [line["step"] for line in RunFolder(folder).read_history()] == list(range(10, 151, 10))


STOPPING = {
    "steps": 60,
    "evaluate_every": 5,
    "patience": 3,
    "watch": "score",
    "higher_is_better": True,
    "keep_best": True,
    "max_norm": 0.5,
}
SCORES = [0.1, 0.6, 0.9, 0.3, 0.5, 0.2]


@pytest.mark.parametrize("stop", [4, 12, 18, 23, 29])
def test_resuming_remembers_the_best_and_how_long_ago_it_was(tmp_path, stop):
    unbroken = Line(figures=list(SCORES))
    expected = make(unbroken, folder=tmp_path / "unbroken", **STOPPING).run()
    assert expected.stopped_early
    assert expected.figures == {"score": 0.9}
    assert expected.steps == 30

    def interrupt(moment):
        if moment.step == stop:
            raise RuntimeError("power cut")

    folder = tmp_path / "broken"
    broken = Line(figures=list(SCORES), at_step=interrupt)
    with pytest.raises(RuntimeError):
        make(broken, folder=folder, checkpoint_seconds=0, **STOPPING).run()
    resumed = Line(figures=broken.figures)
    again = make(resumed, folder=folder, **STOPPING)
    again.resume()
    found = again.run()
    assert bits(resumed) == bits(unbroken)
    assert found.stopped_early
    assert (found.steps, found.figures) == (expected.steps, expected.figures)
    assert history(folder) == history(tmp_path / "unbroken")


def history(folder):
    return [{**line, "seconds": 0} for line in RunFolder(folder).read_history()]


def test_time_before_an_interruption_counts(tmp_path):
    slow = Line(at_step=lambda moment: time.sleep(0.01))
    make(slow, folder=tmp_path, steps=5).run()
    again = make(folder=tmp_path, steps=5)
    again.resume()
    assert again.run().seconds >= 0.05


def test_a_kill_between_the_last_evaluation_and_its_checkpoint_leaves_one_line(tmp_path):
    class Killed(Trainer):
        def save(self):
            if self._evaluated_at == 6:
                raise RuntimeError("power cut")
            super().save()

    objective = Line()
    settings = TrainerSettings(steps=6, lr=0.05, evaluate_every=2, checkpoint_seconds=0)
    optimizer = AdamW(objective.params, 0.05)
    with pytest.raises(RuntimeError):
        Killed(objective, optimizer, settings, folder=tmp_path, progress=False).run()
    again = make(folder=tmp_path, steps=6, evaluate_every=2)
    assert again.resume()
    again.run()
    assert [line["step"] for line in RunFolder(tmp_path).read_history()] == [2, 4, 6]


def test_a_new_run_has_a_history_of_its_own(tmp_path):
    for _ in range(2):
        make(folder=tmp_path, steps=4, evaluate_every=2).run()
        assert [line["step"] for line in RunFolder(tmp_path).read_history()] == [2, 4]


def test_without_keeping_the_best_the_figures_are_the_last(tmp_path):
    objective = Line(figures=[0.9, 0.1, 0.7])
    outcome = make(objective, steps=6, evaluate_every=2, watch="score", higher_is_better=True).run()
    assert outcome.figures == {"score": 0.7}


def test_a_figure_that_is_not_defined_is_never_the_best(tmp_path):
    objective = Line(figures=[float("nan"), 0.2, float("nan"), 0.1])
    outcome = make(
        objective,
        folder=tmp_path,
        steps=8,
        evaluate_every=2,
        watch="score",
        higher_is_better=True,
        keep_best=True,
    ).run()
    assert outcome.figures == {"score": 0.2}
    assert [line["score"] for line in RunFolder(tmp_path).read_history()] == [None, 0.2, None, 0.1]


def test_half_written_checkpoints_are_removed(tmp_path):
    rest = tmp_path / ".fffcpu-0123456789abcdef.tmp"
    rest.write_bytes(b"half")
    make(folder=tmp_path, steps=2).run()
    assert not rest.exists()


def test_a_checkpoint_does_not_grow_with_the_steps_since_an_evaluation(tmp_path):
    sizes = []
    for steps in (10, 1000):
        make(folder=tmp_path / str(steps), steps=steps, max_norm=1.0).save()
        run = make(folder=tmp_path / str(steps), steps=steps, max_norm=1.0)
        run._make_step()
        for _ in range(steps):
            run._losses.add(0.123456789)
            run._norms.add(0.123456789)
        run.save()
        sizes.append(RunFolder(tmp_path / str(steps)).checkpoints()[0].stat().st_size)
    assert abs(sizes[0] - sizes[1]) < 100


def test_rows_are_up_to_date_when_they_are_evaluated():
    class Watched(AdamW):
        calls = 0

        def bring_up_to_date(self):
            self.calls += 1
            super().bring_up_to_date()

    objective = Line()
    optimizer = Watched(objective.params, 0.05)
    seen = []
    evaluate = objective.evaluate
    objective.evaluate = lambda: seen.append(optimizer.calls) or evaluate()
    settings = TrainerSettings(steps=4, lr=0.05, evaluate_every=2)
    Trainer(objective, optimizer, settings, progress=False).run()
    assert seen == [1, 2]


def test_the_history_has_lines_between_evaluations_also_after_resuming(tmp_path):
    options = {"steps": 10, "note_every": 2, "evaluate_every": 4}
    make(folder=tmp_path / "whole", **options).run()
    lines = RunFolder(tmp_path / "whole").read_history()
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10]
    assert [line["rows"] for line in lines] == [8, 16, 24, 32, 40]
    assert ["loss" in line for line in lines] == [False, True, False, True, True]

    stop = make(
        Line(at_step=lambda moment: moment.step == 7 and os.kill(os.getpid(), signal.SIGINT)),
        folder=tmp_path / "part",
        **options,
    )
    with pytest.raises(Interrupted):
        stop.run()
    again = make(folder=tmp_path / "part", **options)
    assert again.resume()
    assert (again.step, again.rows) == (8, 32)
    assert again.run().rows == 40
    without_time = [
        [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
        for lines in (lines, RunFolder(tmp_path / "part").read_history())
    ]
    assert without_time[0] == without_time[1]


def test_a_step_knows_how_many_rows_came_before():
    seen = []
    make(Line(at_step=lambda moment: seen.append(moment.rows)), steps=3).run()
    assert seen == [0, 4, 8]


# --- Damaged checkpoints --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("identity", []),
        ("step", "9"),
        ("step", -1),
        ("step", True),
        ("rows", 10**400),
        ("seconds", "\ud800"),
        ("seconds", 10**400),
        ("seconds", float("nan")),
        ("best", [1]),
        ("best", {"loss": "low"}),
        ("since_best", None),
        ("evaluated_at", 1.5),
        ("noted_at", {}),
        ("figures", None),
        ("losses", [1, 2, 3]),
        ("losses", {}),
        ("norms", [0.0, "x"]),
        ("stopped", 1),
    ],
)
def test_a_checkpoint_with_a_wrong_note_is_refused(name, value, tmp_path):
    trainer = make(folder=tmp_path)
    trainer.run()
    path, notes, arrays = trainer.run_folder.latest()
    trainer.run_folder.save(trainer.step, arrays, notes | {name: value}, keep=1)
    again = make(folder=tmp_path)
    with pytest.raises(CheckpointError, match=f"{path.name}' is damaged: .*'{name}' must be"):
        again.resume()
    assert bits(again.objective) == bits(Line())
    if name != "stopped":  # checkpoints without it are older
        trainer.run_folder.save(
            trainer.step, arrays, {n: v for n, v in notes.items() if n != name}, keep=1
        )
        with pytest.raises(CheckpointError, match=f"'{name}' must be .*, got None"):
            again.resume()


def test_a_checkpoint_that_names_a_later_evaluation_is_continued(tmp_path):
    trainer = make(folder=tmp_path, steps=5)
    trainer.run()
    _, notes, arrays = trainer.run_folder.latest()
    trainer.run_folder.remove_checkpoints()
    (tmp_path / HISTORY).unlink()
    trainer.run_folder.save(5, arrays, notes | {"evaluated_at": 6}, keep=1)
    again = make(folder=tmp_path, steps=6)
    again.resume()
    assert again.run().steps == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"param.weight": np.zeros(4)}, "holds other parameters"),
        ({"param.weight": np.zeros(3, "f4")}, "holds other parameters"),
        ({"best.weight": np.zeros(3)}, "holds other parameters"),
        ({"usage.weight": np.zeros(2, "i8")}, "holds other arrays"),
        ({"other.x": np.zeros(2)}, "holds other arrays"),
        ({"optimizer.more": np.zeros(2)}, r"checkpoint '.*': state of the optimizer AdamW"),
    ],
)
def test_a_checkpoint_with_other_arrays_is_refused(changes, message, tmp_path):
    trainer = make(folder=tmp_path, steps=5)
    trainer.run()
    _, notes, arrays = trainer.run_folder.latest()
    trainer.run_folder.save(trainer.step, arrays | changes, notes, keep=1)
    again = make(folder=tmp_path, steps=5)
    with pytest.raises(CheckpointError, match=message):
        again.resume()
    assert bits(again.objective) == bits(Line())


def test_usage_of_another_shape_is_refused(tmp_path):
    trainer = make(folder=tmp_path, steps=5)
    trainer.run()
    _, notes, arrays = trainer.run_folder.latest()
    arrays["usage.weight"] = np.zeros(1)
    trainer.run_folder.save(trainer.step, arrays, notes | {"step": 4}, keep=1)
    again = make(folder=tmp_path, steps=5)
    again.resume()
    with pytest.raises(CheckpointError, match=r"usage of shape \(2,\) for 'weight', got \(1,\)"):
        again.run()


# --- Callbacks ------------------------------------------------------------------------------------


def test_callbacks_see_each_evaluation():
    seen = []
    objective = Line([5, 3, 4])
    trainer = make(
        objective,
        steps=5,
        evaluate_every=2,
        watch="score",
        callbacks=[seen.append, lambda evaluation: True],
    )
    trainer.run()
    assert [(e.number, e.step, e.rows) for e in seen] == [(1, 2, 8), (2, 4, 16), (3, 5, 20)]
    assert [dict(e.figures) for e in seen] == [{"score": 5}, {"score": 3}, {"score": 4}]
    assert [e.improved for e in seen] == [True, True, False]
    assert [e.train_loss for e in seen] == [line["train_loss"] for line in trainer.history]
    assert all(e.lr == 0.05 and 0 < e.seconds < 60 for e in seen[:2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen[0].step = 1
    with pytest.raises(TypeError):
        seen[0].figures["score"] = 0


def test_callbacks_change_no_bit(tmp_path):
    plain, watched = Line(), Line()
    make(plain, evaluate_every=7).run()
    make(watched, evaluate_every=7, callbacks=[lambda evaluation: None]).run()
    assert bits(watched) == bits(plain)


def stop_at(step):
    """A callback that stops a run."""

    def stop(evaluation):
        if evaluation.step >= step:
            raise StopTraining

    return stop


def test_a_callback_stops_a_run_after_the_others_were_called(tmp_path):
    seen, objective = [], Line()
    trainer = make(
        objective, tmp_path, evaluate_every=10, callbacks=[stop_at(20), seen.append], steps=40
    )
    outcome = trainer.run()
    assert outcome.steps == 20
    assert outcome.stopped_early
    assert [evaluation.step for evaluation in seen] == [10, 20]
    # What was stopped stays stopped, also without the callback, and has the same bits.
    again = Line()
    resumed = make(again, tmp_path, evaluate_every=10, steps=40)
    assert resumed.resume()
    assert resumed.run().steps == 20
    assert bits(again) == bits(objective)


def test_a_callback_that_fails_loses_nothing(tmp_path):
    def fail(evaluation):
        if evaluation.step == 20:
            raise LookupError("no such place")

    with pytest.raises(LookupError, match="no such place"):
        make(folder=tmp_path, evaluate_every=10, callbacks=[fail]).run()
    seen, objective, whole = [], Line(), Line()
    resumed = make(objective, tmp_path, evaluate_every=10, callbacks=[seen.append])
    assert resumed.resume()
    assert resumed.step == 20
    resumed.run()
    assert [evaluation.step for evaluation in seen] == [30, 40]
    make(whole, evaluate_every=10).run()
    assert bits(objective) == bits(whole)


@pytest.mark.parametrize("callbacks", [print, [3], "ab", None])
def test_callbacks_must_be_functions(callbacks):
    with pytest.raises(ArgumentTypeError, match="'callbacks' must be a sequence of functions"):
        make(callbacks=callbacks)


# --- Logging --------------------------------------------------------------------------------------


def test_evaluations_and_checkpoints_are_logged(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "fffcpu")
    make(Line([5, 3]), tmp_path, steps=4, evaluate_every=2, watch="score").run()
    again = make(folder=tmp_path, steps=4, evaluate_every=2, watch="score")
    again.resume()
    path = str(tmp_path / "checkpoint-0000000004.safetensors")
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    trainer, folder = "fffcpu.training.trainer", "fffcpu.training.run_folder"
    assert (trainer, "INFO", "evaluation 1 at step 2: {'score': 5}") in told
    assert (trainer, "INFO", "evaluation 2 at step 4: {'score': 3}") in told
    assert any(
        name == folder and message.startswith(f"wrote checkpoint '{path}'")
        for name, _, message in told
    )
    assert (trainer, "INFO", f"resumed from '{path}' at step 4") in told
    assert any(message.startswith("run ended after 4 steps") for _, _, message in told)
