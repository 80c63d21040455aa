"""What layers and models learn."""
