"""The only place that touches private parts of Numba: vectors, addresses, the cache on disk."""
