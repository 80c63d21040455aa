"""Encoders compared with others: inference, training, predictions alone, a BERT with int8."""
