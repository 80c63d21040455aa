"""What an encoder does to rows beside matrix products: in plain NumPy, and compiled."""
