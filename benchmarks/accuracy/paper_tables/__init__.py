"""Tables of accuracy after "Fast Feedforward Networks", and with other training methods."""
