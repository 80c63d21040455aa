"""A tiny BERT of random weights, with the published names."""

from __future__ import annotations

import json

import numpy as np

from fffcpu.checkpoints.safetensors import write_tensors

LAYERS, HEADS, WIDTH, INNER = 2, 2, 8, 12


def random_weights(vocabulary: int, positions: int = 128):
    """Arrays by name, float32. Norms differ from those of a new model."""
    rng = np.random.default_rng(0)
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, WIDTH),
        "embeddings.position_embeddings.weight": (positions, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms = ["embeddings"]
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}"
        maps = {
            **{f"attention.self.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")},
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (INNER, WIDTH),
            "output.dense": (WIDTH, INNER),
        }
        for name, shape in maps.items():
            shapes |= {f"{start}.{name}.weight": shape, f"{start}.{name}.bias": shape[:1]}
        norms += [f"{start}.attention.output", f"{start}.output"]
    for name in norms:
        for part in ("weight", "bias"):
            shapes[f"{name}.LayerNorm.{part}"] = (WIDTH,)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def write_bert(folder, vocabulary: int, **changes) -> None:
    """Write the weights and the config of the model to a folder."""
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "layer_norm_eps": 1e-12,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_tensors(folder / "model.safetensors", random_weights(vocabulary))
