"""Row operations of an encoder and its products: in plain NumPy, and compiled."""
