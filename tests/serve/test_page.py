"""The page for people: its files, what its script asks for, and the page in a real browser."""

from __future__ import annotations

import itertools
import os
import shutil

import numpy as np
import pytest

from tests.serve.support import tensor

SPECIES = ("cat", "dog", "owl")

NEEDED = "FFFCPU_NEEDS_BROWSER"
"""Variable under which a missing browser is a failure and no skip."""


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [
        ("/", "text/html; charset=utf-8", b"<title>fffcpu</title>"),
        ("/page/page.js", "text/javascript; charset=utf-8", b'"use strict"'),
        ("/page/page.css", "text/css; charset=utf-8", b"body"),
    ],
)
def test_files_come_with_a_policy(path, kind, part, client):
    status, headers, content = client.ask("GET", path)
    assert (status, headers["content-type"]) == (200, kind)
    assert part in content
    assert headers["content-security-policy"].startswith("default-src 'self'")
    for outside in (b"http://", b"https://"):
        assert outside not in content.replace(b"http://www.w3.org/2000/svg", b"")


def test_models_are_described(client, served):
    status, answer = client.json("GET", "/page/models")
    assert (status, answer["ready"]) == (200, True)
    assert [model["name"] for model in answer["models"]] == list(served)
    by_name = {model["name"]: model for model in answer["models"]}
    assert [field["name"] for field in by_name["species"]["fields"]] == list("abcd")
    assert "[MASK]" in by_name["words"]["note"]


def test_routes_are_those_of_the_layer(client, served):
    x = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    status, trees = client.json("POST", "/page/models/layer/route", {"inputs": [tensor("x", x)]})
    assert status == 200
    assert [tree["nodes"] for tree in trees] == served["layer"].route(x)[0].tolist()
    row = np.zeros((1, 4))
    _, trees = client.json("POST", "/page/models/species/route", {"inputs": [tensor("x", row)]})
    assert trees[0]["nodes"] == served["species"].layer.route(row)[0, 0].tolist()
    body = {"inputs": [tensor("text", ["a cat"])]}
    _, trees = client.json("POST", "/page/models/judge/route", body)
    assert [tree["name"] for tree in trees] == ["layer 1, tree 1", "layer 2, tree 1"]
    assert all(len(tree["nodes"]) == 4 for tree in trees)
    assert client.json("POST", "/page/models/judge/route", {"inputs": []})[0] == 400
    body = {"inputs": [tensor("text", ["the [MASK] sat"])]}
    _, trees = client.json("POST", "/page/models/words/route", body)
    (tokens,) = served["words"].tokenize(["the [MASK] sat"])
    _, cache = served["words"].model.encoder.forward(np.array([tokens]))
    paths = [layer.feedforward.nodes[0, 0].tolist() for layer in cache.layers]
    assert [tree["nodes"] for tree in trees] == paths


def chromium():
    """Path of the browser; empty if there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome") or ""


@pytest.fixture(scope="module")
def browser():
    if NEEDED not in os.environ:
        pytest.importorskip("selenium", reason="selenium is not installed")
        if not shutil.which("chromedriver") or not chromium():
            pytest.skip("there is no chromium with its driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = chromium()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, port):
    """The page, ready, with functions to wait for things on it."""
    browser.get(f"http://127.0.0.1:{port}/")
    until(browser, lambda: browser.find_element("id", "state").text == "ready")
    yield browser
    wrong = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [entry for entry in wrong if "status of 400" not in entry["message"]] == []


def until(browser, condition):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 30).until(lambda _: condition())


def choose(page, name):
    from selenium.webdriver.support.select import Select

    Select(page.find_element("id", "model")).select_by_value(name)


def answer_of(page):
    return until(page, lambda: page.find_element("id", "answer").text)


@pytest.mark.slow
def test_a_row_is_filled_in_and_answered(page, served):
    choose(page, "species")
    for number in range(4):
        field = page.find_element("id", f"field{number}")
        label = page.find_element("css selector", f"label[for=field{number}]")
        assert label.text == "abcd"[number]
        field.send_keys(str(number + 0.5))
    page.find_element("id", "ask").click()
    row = np.arange(4) + 0.5
    shown = answer_of(page)
    assert shown.startswith(str(served["species"].predict(row)))
    chances = served["species"].probabilities(row)
    assert all(f"{name} {100 * p:.1f} %" in shown for name, p in zip(SPECIES, chances, strict=True))
    drawn = until(page, lambda: page.find_elements("css selector", "#trees svg"))
    nodes = served["species"].layer.route(row)[0]
    sides = ["left" if b == 2 * a + 1 else "right" for a, b in itertools.pairwise(nodes)]
    assert drawn[0].get_attribute("aria-label") == f"tree 1: {', '.join(sides)}"


@pytest.mark.slow
def test_a_field_that_stays_empty_is_a_missing_value(page):
    choose(page, "species")
    page.find_element("id", "field0").send_keys("2.5")
    page.find_element("id", "ask").click()
    assert "column 'b', row 0" in answer_of(page)  # which the model had in no row of its training


@pytest.mark.slow
def test_no_part_makes_the_page_wider_than_a_phone(page, client):
    client.json("POST", "/v2/models/price/infer", {"inputs": [tensor("x", np.zeros((3, 4)))]})
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        until(page, lambda: page.find_elements("css selector", "#figures tbody tr"))
        assert page.execute_script("return document.documentElement.scrollWidth") == 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_a_text_is_typed_by_keyboard_alone(page, served):
    from selenium.webdriver import ActionChains, Keys

    choose(page, "words")
    keys = ActionChains(page)
    page.find_element("id", "model").send_keys(Keys.TAB)  # from the list of models to the text
    keys.send_keys("the [MASK] sat", Keys.TAB, Keys.ENTER).perform()
    shown = answer_of(page)
    guesses = served["words"].fill(["the [MASK] sat"])[0][0]
    assert all(guess.token in shown for guess in guesses)
    assert len(until(page, lambda: page.find_elements("css selector", "#trees svg"))) == 2


@pytest.mark.slow
def test_what_is_wrong_is_said_on_the_page(page):
    choose(page, "layer")
    page.find_element("id", "free").send_keys("1 2 3")
    page.find_element("id", "ask").click()
    assert "(rows, 64)" in answer_of(page)
    choose(page, "words")
    page.find_element("id", "free").send_keys("no mask")
    page.find_element("id", "ask").click()
    assert "[MASK]" in answer_of(page)


@pytest.mark.slow
def test_figures_are_live(page, client):
    def requests():
        # In one step: the script replaces the rows every two seconds.
        text = page.execute_script("return document.querySelector('#figures tbody').innerText")
        return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}

    body = {"inputs": [tensor("x", np.zeros((3, 4)))]}
    before = requests().get("price", ["0"])
    client.json("POST", "/v2/models/price/infer", body)
    until(page, lambda: int(requests().get("price", ["0"])[0]) == int(before[0]) + 1)
