"""The errors of Dask that mean a lost worker, and not something wrong with the work."""

from __future__ import annotations

import asyncio
import concurrent.futures

import distributed

__all__ = ["LOSSES"]

LOSSES = (asyncio.CancelledError, concurrent.futures.CancelledError, distributed.KilledWorker)
"""Errors of results that were lost with a worker."""
