"""The page about serving: its commands, its clients and its image do what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from tests.kernels.test_jit import OTHER_USER, another_user_runs_python
from tests.serve.test_running import running
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def write_flowers(folder):
    """The table of the page, by the code of the page."""
    run_python(blocks("python")[0], folder)


def run_python(code, folder=None):
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def five_commands():
    """The words of each command of "From a CSV to a served model"."""
    return [shlex.split(line[2:]) for line in lines_of(blocks("console")[0])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the table and the model of the page."""
    made = tmp_path_factory.mktemp("page")
    write_flowers(made)
    _, train, *_ = five_commands()
    subprocess.run([sys.executable, "-m", *train], cwd=made, check=True)
    return made


def lines_of(block):
    return [line for line in block.replace("\\\n", "").splitlines() if line.startswith("$ ")]


def test_five_commands_lead_from_a_table_to_an_answer():
    install, train, evaluate, serve, curl = five_commands()
    assert install[:2] == ["pip", "install"]
    (name, extras) = re.fullmatch(r"(\w+)\[([\w,]+)\]", install[2]).groups()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert name == project["name"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert "serve" in extras
    assert [words[:2] for words in (train, evaluate, serve)] == [
        ["fffcpu", "train"],
        ["fffcpu", "evaluate"],
        ["fffcpu", "serve"],
    ]
    assert train[train.index("--out") + 1] == evaluate[2] == "flowers.safetensors"
    assert serve[2:] == ["flowers=flowers.safetensors", "&"]
    assert curl[0] == "curl"


@pytest.mark.slow
@pytest.mark.thorough
def test_the_model_of_the_page_is_evaluated(folder):
    _, _, evaluate, *_ = five_commands()
    done = subprocess.run(
        [sys.executable, "-m", *evaluate], cwd=folder, capture_output=True, text=True, check=True
    )
    (accuracy,) = re.findall(r"^ *accuracy +(0\.\d+)$", done.stdout, re.M)
    assert float(accuracy) > 0.8


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_commands_and_the_clients_of_the_page_work(folder):
    asks = [shlex.split(line[2:]) for line in lines_of(blocks("console")[1])]
    assert len(asks) == 2
    words = f"words={ROOT / 'fffcpu' / 'data' / 'fastbert'}"
    with running(f"flowers={folder / 'flowers.safetensors'}", words) as server:
        server.wait_for("ready")
        here = f"localhost:{server.port}"
        answers = []
        for command in (*asks, five_commands()[-1]):
            places = [word.replace("localhost:8000", here) for word in command[1:]]
            done = subprocess.run(
                ["curl", "--silent", "--fail-with-body", *places],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout
            answers.append(done.stdout)
        assert answers[0] == '{"ready":true}'
        assert [tensor["name"] for tensor in json.loads(answers[1])["inputs"]] == ["x"]
        assert '"data":["setosa"]' in answers[2]
        _, triton, openai, plain, own = blocks("python")
        for code, expected in ((triton, "setosa"), (openai, "2 160"), (plain, "setosa")):
            if code is plain and not has_requests():
                continue
            assert expected in run_python(code.replace("localhost:8000", here))
        assert server.end() == 0
    assert "from fffcpu.serve import" in own


def objects_in(text):
    """The JSON objects in a text, whose lines may be broken anywhere."""
    text, decoder, found = text.replace("\n", ""), json.JSONDecoder(), []
    start = text.find("{")
    while start >= 0:
        value, end = decoder.raw_decode(text, start)
        found.append(value)
        start = text.find("{", end)
    return found


def test_the_page_shows_what_the_server_answers():
    answer, ready, described = objects_in("".join(blocks("text")))
    assert answer["outputs"][0]["data"] == ["setosa"]
    assert ready == {"ready": True}
    assert described["name"] == answer["model_name"] == "flowers"


def has_requests():
    import importlib.util

    return importlib.util.find_spec("requests") is not None


@pytest.mark.slow
@pytest.mark.thorough
def test_the_application_of_the_page_can_be_made(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(blocks("python")[-1], names)
    assert list(names["application"].server.registry) == ["flowers"]


@pytest.mark.slow
@pytest.mark.thorough
def test_the_image_serves_as_another_user_with_nothing_to_write(folder):
    """The steps of the Dockerfile, but for those that fetch a system and packages."""
    if not another_user_runs_python():
        pytest.skip("this process may not become another user who can run this Python")
    steps = dict.fromkeys(("FROM", "WORKDIR", "COPY", "ENV", "USER", "CMD"))
    (dockerfile,) = blocks("dockerfile")
    runs = []
    for line in dockerfile.splitlines():
        word, _, rest = line.partition(" ")
        if word == "RUN":
            runs.append(rest)
        elif word in steps:
            steps[word] = rest
    assert [run.split()[0] for run in runs] == ["useradd", "pip", "mkdir"]
    assert steps["USER"] == "server"
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        place = Path(name)
        place.chmod(0o755)
        source, target = steps["COPY"].split()
        assert target == steps["WORKDIR"] + "/"
        shutil.copy(folder / source, place / source)

        def here(text):
            return text.replace(steps["WORKDIR"], str(place))

        variable, _, value = here(steps["ENV"]).partition("=")
        environment = {**os.environ, variable: value, "PYTHONPATH": str(ROOT)}
        build = here(runs[2]).replace("fffcpu", f"{sys.executable} -m fffcpu")
        subprocess.run(build, shell=True, cwd=place, env=environment, check=True)
        before = sorted(path.name for path in (place / "kernels").rglob("*"))
        command = [here(word) for word in re.findall(r'"([^"]+)"', steps["CMD"])]
        assert command[:2] == ["fffcpu", "serve"]
        host = command.index("--host")
        assert command[host + 1] == "0.0.0.0"
        from tests.serve import test_running

        with test_running.running(
            *command[2:host], start=OTHER_USER, env=environment, cwd="/"
        ) as server:
            server.wait_for("ready")
            with test_running.Client(server.port) as client:
                assert client.json("GET", "/v2/health/ready") == (200, {"ready": True})
                x = test_running.tensor("x", [[5.1, 3.5, 1.4, 0.2]])
                status, answer = client.json("POST", "/v2/models/flowers/infer", {"inputs": [x]})
                assert (status, answer["outputs"][0]["data"]) == (200, ["setosa"])
            assert server.end() == 0
            assert not any("warn" in line.lower() for line in server.lines), server.lines
        assert sorted(path.name for path in (place / "kernels").rglob("*")) == before


def test_the_unit_has_what_systemd_needs():
    import configparser

    (text,) = blocks("ini")
    unit = configparser.ConfigParser(interpolation=None, delimiters="=")
    unit.optionxform = str
    unit.read_string(text)
    service = unit["Service"]
    assert "fffcpu serve" in service["ExecStart"]
    assert "--reload" in service["ExecStart"]
    assert "HUP" in service["ExecReload"]
    from fffcpu.serve import ServeSettings

    assert int(service["TimeoutStopSec"]) > ServeSettings().drain
