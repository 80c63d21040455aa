"""Measuring: checked timing in alternation, and what a machine could do at best."""
