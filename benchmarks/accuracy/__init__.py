"""Accuracy of trained layers and models."""
