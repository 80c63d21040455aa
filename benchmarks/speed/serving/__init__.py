"""Servers under load: ours, a bare endpoint of the same packages, and others."""
