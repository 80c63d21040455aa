"""Backend modules: each computes both layers, and any can stand in for any other."""
