"""FastBERT compared with other encoders: inference, training, predictions alone."""
