"""Row operations of an encoder besides matrix products: in plain NumPy, and compiled."""
