"""Measuring: outputs checked, contenders timed in alternation, and the machine's roofline."""
