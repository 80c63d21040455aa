"""What the process runs on: BLAS, memory, the pool of threads.

This package imports nothing: `fffcpu.system.blas` must run before NumPy is loaded.
"""
