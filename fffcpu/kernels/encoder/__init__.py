"""Row operations of an encoder and its int8 products: in plain NumPy, and compiled."""
