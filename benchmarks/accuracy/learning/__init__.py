"""Changes of the way in which fast feedforward layers learn, each tried alone."""
