"""Data sets from package registries, prepared for training."""
