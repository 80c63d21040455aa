"""Fuzzing: damaged files for every reader, and hostile arrays for every function of arrays."""
