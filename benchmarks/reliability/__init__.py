"""Processes that are killed and must lose nothing."""
