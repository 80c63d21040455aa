"""Tables, trainings, and workers that are killed."""

from __future__ import annotations

import contextlib
import os
import signal

import numpy as np

from fffcpu.data import Table, load_digits
from fffcpu.recipes.fitting import FitSettings

IMAGES, LABELS = (array[:500] for array in load_digits())
DIGITS = Table(IMAGES, LABELS, classes=tuple(range(10)))

QUICK = {"epochs": 3, "depth": 3, "trees": 2, "batch_size": 100, "shards": 4}

LAYERS = {
    "fast": FitSettings(**QUICK),
    "rows": FitSettings(**QUICK | {"depth": 9, "trees": 1, "batch_size": 20}),
    "leaf": FitSettings(**QUICK, layer="leaf", region_leak=0.1, dropout=0.1),
    "dense": FitSettings(**QUICK, layer="dense", width=9),
    "local": FitSettings(**QUICK, optimizer="local-adam"),
}


def saved(fitted, folder):
    """The bytes of a model's file."""
    fitted.predictor.save(folder / "model")
    return (folder / "model").read_bytes()


def bits(model):
    """The bytes of a model's parameters."""
    return {name: np.asarray(array).tobytes() for name, array in model.params.items()}


@contextlib.contextmanager
def local_client(**how):
    """A client of a cluster with other options than `fffcpu.dask.connect` has."""
    import distributed

    free = {"dashboard_address": "127.0.0.1:0"}
    with (
        distributed.LocalCluster(**how, dashboard_address=None, scheduler_kwargs=free) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


class Killer:
    """A callback that kills workers after evaluations."""

    def __init__(self, client, kills=1):
        self.client, self.kills, self.killed = client, kills, []

    def __call__(self, evaluation):
        if len(self.killed) < self.kills:
            pids = self.client.run(os.getpid)
            address = max(set(pids) - set(self.killed))
            self.killed.append(address)
            os.kill(pids[address], signal.SIGKILL)
