"""The predictor of a file behind LitServe, in batches."""

from __future__ import annotations

from typing import Any

import litserve
import numpy as np

from fffcpu import Predictor


class Api(litserve.LitAPI):  # noqa: D101
    path: str

    def setup(self, device: str) -> None:  # noqa: D102
        self.predictor = Predictor.load(self.path)

    def decode_request(self, request):  # noqa: D102
        return np.array(request["inputs"][0]["data"], np.float32)

    def batch(self, inputs: list[Any]) -> Any:  # noqa: D102
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:  # noqa: D102
        return self.predictor.probabilities(x)

    def unbatch(self, output: Any) -> list[Any]:  # noqa: D102
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:  # noqa: D102
        return {"outputs": [{"name": "probabilities", "data": output.tolist()}]}


def main(path: str, port: str) -> None:
    """Serve the predictor in a file."""
    api = Api(max_batch_size=64, batch_timeout=0.001, api_path="/v2/models/model/infer")
    api.path = path
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    how = {"num_api_servers": 1, "log_level": "error", "generate_client_file": False}
    server.run(port=int(port), **how)
