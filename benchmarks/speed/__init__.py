"""Time of calls, training steps and start-up."""
