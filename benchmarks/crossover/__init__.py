"""Accuracy against measured time on several data sets, compared with other classifiers."""
