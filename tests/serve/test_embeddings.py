"""OpenAI's interface of embeddings."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.serve.support import LONG


def test_embeddings(client, served):
    texts = ["the cat", "a dog"]
    expected = np.stack([served["encoder"].embed([text], normalize=True)[0] for text in texts])
    body = {"input": texts, "model": "encoder"}
    status, answer = client.json("POST", "/v1/embeddings", body)
    assert status == 200
    found = [item["embedding"] for item in answer["data"]]
    assert np.array_equal(np.float32(found), expected)
    assert [item["index"] for item in answer["data"]] == [0, 1]
    tokens = sum(map(len, served["encoder"].tokenizer.encode(texts)))
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    status, answer = client.json(
        "POST", "/v1/embeddings", {**body, "input": texts[0], "encoding_format": "base64"}
    )
    raw = base64.b64decode(answer["data"][0]["embedding"])
    assert raw == expected[0].tobytes()


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": None}, 400, "'model' must be a text"),
        ({"model": "none"}, 404, "no model 'none'"),
        ({"model": "layer"}, 400, "takes no texts"),
        ({"input": [[1, 2], [3]]}, 400, "check_embedding_ctx_length=False"),
        ({"input": [1, 2]}, 400, "check_embedding_ctx_length=False"),
        ({"input": []}, 400, "'input' must be"),
        ({"input": LONG}, 413, "texts may have 12 tokens"),
        ({"encoding_format": "hex"}, 400, "'encoding_format' must be"),
        ({"dimensions": 8}, 400, "'dimensions' must be 16"),
    ],
)
def test_wrong_requests_for_embeddings_are_named(changes, status, message, client):
    body = {"input": "a cat", "model": "encoder", **changes}
    found, answer = client.json("POST", "/v1/embeddings", body)
    assert found == status
    assert message in answer["error"]["message"]
