"""The published models of tests/golden, what they computed, and a recorded training run."""

from __future__ import annotations

import numpy as np

from fffcpu.checkpoints import bert, crammed_bert
from fffcpu.training import AdamW, clip_gradients, one_cycle_triangle
from tests.support.paths import GOLDEN


def expected_of(name, file="expected.npz"):
    with np.load(GOLDEN / name / file) as file:
        return {key: file[key] for key in file}


def assert_close(actual, expected, relative, what=""):
    """Assert agreement relative to the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, what
    assert np.abs(actual - expected).max() <= relative * np.abs(expected).max(), what


def check_bert(model, inputs, data, exact=True):
    """Logits, loss and gradients of a BERT with a head, against those of transformers."""
    tolerance = 1e-12 if exact else 1e-4
    assert_close(model(*inputs), data["logits"], tolerance)
    loss, cache = model.forward(*inputs, labels=data["labels"])
    assert_close(loss, data["loss"], tolerance)
    grads = model.backward(cache)
    assert list(grads) == list(model.params)
    found = bert.views(model.config, grads)
    wanted = {n.removeprefix("grad."): a for n, a in data.items() if n.startswith("grad.")}
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        # The keys' biases change no probability: their gradients are rounding.
        if not name.endswith("self.key.bias"):
            assert_close(found[name], array, 1e-11 if exact else 1e-3, name)


def check_outputs(model, data):
    ids = data["input_ids"]
    assert_close(model(ids), data["logits"], 1e-5)
    assert_close(model(ids, data["attention_mask"]), data["logits_masked_attention"], 1e-5)


def check_gradients(model, data):
    loss, cache = model.forward(data["input_ids"], labels=data["labels"])
    assert_close(loss, data["loss"], 1e-6)
    grads = model.backward(cache)
    assert list(grads) == list(model.params)
    theirs = crammed_bert.to_state_dict(model.config, grads)
    wanted = {key.removeprefix("d_") for key in data if key.startswith("d_")}
    assert {key for key in theirs if not key.endswith("norm_factor")} == wanted
    for key in wanted:
        assert_close(theirs[key], data[f"d_{key}"], 1e-4, key)


def check_training(model, data):
    """The eight recorded steps: AdamW, gradients clipped at 0.5, the triangle, one batch."""
    optimizer = AdamW(model.params, 1e-3, betas=(0.9, 0.98), eps=1e-12, weight_decay=0.01)
    losses, norms, rates = [], [], []
    for step in range(8):
        loss, cache = model.forward(data["input_ids"], labels=data["labels"])
        grads = model.backward(cache)
        losses.append(loss)
        norms.append(clip_gradients(grads, 0.5))
        rates.append(1e-3 * one_cycle_triangle(step / 8))
        optimizer.step(grads, lr=rates[-1])
    np.testing.assert_allclose(rates, data["step_lrs"], rtol=1e-12)
    np.testing.assert_allclose(losses, data["step_losses"], rtol=2e-6)
    np.testing.assert_allclose(norms, data["step_grad_norms"], rtol=2e-6)
