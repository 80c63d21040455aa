"""Processes that are killed, and lose nothing."""
