"""The process's environment: BLAS, memory, threads, CPUs, the compiler, files, the terminal.

This package imports nothing: `fffcpu.system.blas` must run before NumPy is loaded.
"""
