"""The predictor of a file behind MLServer, in batches and in the process that answers."""

from __future__ import annotations

import asyncio
import socket

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse

from fffcpu import Predictor


class Runtime(MLModel):  # noqa: D101
    async def load(self) -> bool:  # noqa: D102
        self.predictor = Predictor.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:  # noqa: D102
        x = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("probabilities", self.predictor.probabilities(x))
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve(path: str, port: int) -> None:
    """Serve the predictor in a file."""
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
    ):
        others = first.getsockname()[1], second.getsockname()[1]
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=others[0],
        metrics_port=others[1],
        parallel_workers=0,
        debug=False,
        load_models_at_startup=False,
    )
    model = ModelSettings(
        name="model",
        implementation=Runtime,
        parameters=ModelParameters(uri=path),
        max_batch_size=64,
        max_batch_time=0.001,
    )
    server = MLServer(settings)
    await server.start([model])


def main(path: str, port: str) -> None:
    """Serve the predictor in a file, on a port."""
    asyncio.run(serve(path, int(port)))
