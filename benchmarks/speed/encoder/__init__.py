"""FastBERT beside other encoders: inference, training, predictions alone."""
