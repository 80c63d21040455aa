"""Real clients, unchanged: tritonclient in JSON and in bytes, and openai."""

from __future__ import annotations

import concurrent.futures
import itertools

import numpy as np
import pytest

pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
pytest.importorskip("openai", reason="openai is not installed")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((700, 64)).astype(np.float32)


@pytest.fixture
def triton(port):
    from tritonclient import http

    with http.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield client


def tensor(name, array, binary):
    from tritonclient import http
    from tritonclient.utils import np_to_triton_dtype

    found = http.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def output(name, binary):
    from tritonclient import http

    return http.InferRequestedOutput(name, binary_data=binary)


def test_triton_asks_about_server_and_models(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("layer")
    assert not triton.is_model_ready("none")
    assert triton.get_server_metadata()["name"] == "fffcpu"
    assert triton.get_model_metadata("species")["inputs"][0]["shape"] == [-1, 4]


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_triton_gets_a_layers_own_bits(rows, binary_out, binary_in, triton, served):
    outputs = None if binary_out is None else [output("y", binary_out)]
    answer = triton.infer("layer", [tensor("x", X[:rows], binary_in)], outputs=outputs)
    found = answer.as_numpy("y")
    assert found.tobytes() == served["layer"](X[:rows]).tobytes()
    assert found.shape == (rows, 48)


@pytest.mark.parametrize("binary", [False, True])
def test_triton_sends_and_gets_texts(binary, triton, served):
    texts = np.array(["the cat", "ein Löwe", ""], object)
    answer = triton.infer(
        "judge",
        [tensor("text", texts, binary)],
        outputs=[output("label", binary), output("probabilities", binary)],
    )
    labels = answer.as_numpy("label")
    labels = [label.decode() if isinstance(label, bytes) else label for label in labels]
    chances = answer.as_numpy("probabilities")
    assert labels == np.array(["bad", "good"])[chances.argmax(axis=1)].tolist()


def test_triton_is_told_what_is_wrong(triton):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=r"numbers of shape \(rows, 64\)"):
        triton.infer("layer", [tensor("x", X[:, :3], True)])
    with pytest.raises(InferenceServerException, match="no model 'none'"):
        triton.infer("none", [tensor("x", X, True)])


@pytest.fixture
def openai(port):
    from openai import OpenAI

    with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused") as client:
        yield client


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_openai_gets_vectors(form, openai, served):
    texts = ["the cat sat", "a dog"]
    more = {} if form is None else {"encoding_format": form}
    answer = openai.embeddings.create(model="encoder", input=texts, **more)
    for text, item in zip(texts, answer.data, strict=True):
        vector = item.embedding
        if form == "base64":  # the client decodes it only if nobody asked for it
            import base64

            vector = np.frombuffer(base64.b64decode(vector), "<f4")
        expected = served["encoder"].embed([text], normalize=True)[0]
        assert np.array_equal(np.float32(vector), expected)


def test_openai_lists_models_and_is_told_what_is_wrong(openai, served):
    from openai import BadRequestError, NotFoundError

    assert [model.id for model in openai.models.list()] == list(served)
    assert openai.models.retrieve("layer").id == "layer"
    with pytest.raises(BadRequestError, match="check_embedding_ctx_length=False"):
        openai.embeddings.create(model="encoder", input=[[1, 2]])
    with pytest.raises(NotFoundError, match="no model 'none'"):
        openai.embeddings.create(model="none", input="a")


@pytest.mark.parametrize(
    "calls",
    [pytest.param(15, marks=pytest.mark.slow), pytest.param(420, marks=pytest.mark.thorough)],
)
def test_many_clients_get_the_bits_of_a_local_call(calls, port, served):
    """Requests of random sizes, from 12 threads, in JSON and in bytes: 10,080 of them, or fewer."""
    from tritonclient import http

    counts = itertools.count()

    def client(seed):
        rng = np.random.default_rng(seed)
        with http.InferenceServerClient(f"127.0.0.1:{port}") as triton:
            for _ in range(calls):
                rows = int(rng.choice([1, 1, 1, 2, 5, 33, 300]))
                own = X[rng.integers(0, len(X), rows)]
                name, binary = f"request {seed} {next(counts)}", bool(rng.integers(2))
                answer = triton.infer(
                    "layer",
                    [tensor("x", own, binary)],
                    request_id=name,
                    outputs=[output("y", bool(rng.integers(2)))],
                )
                assert answer.get_response()["id"] == name
                assert answer.as_numpy("y").tobytes() == served["layer"](own).tobytes()
                texts = rng.choice(["a cat", "the dog sat", "a rose under the tree"], 2)
                answer = triton.infer("encoder", [tensor("text", texts.astype(object), binary)])
                vectors = answer.as_numpy("embedding")
                for text, vector in zip(texts.tolist(), vectors, strict=True):
                    assert vector.tobytes() == served["encoder"].embed([text])[0].tobytes()

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(client, seed) for seed in range(12)]:
            done.result(600)
