"""Backend modules: each computes both layers, and all are interchangeable."""
