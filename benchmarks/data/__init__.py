"""Data sets that registries carry, made ready."""
