"""Benchmarks, run as modules from the repository: ``python -m benchmarks.speed.layers --help``."""
