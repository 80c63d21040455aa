"""Accuracy against measured time on several data sets, beside other classifiers."""
