"""The only package that uses private parts of Numba: vectors, addresses, the cache on disk."""
