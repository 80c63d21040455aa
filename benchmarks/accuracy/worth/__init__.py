"""How many dense neurons a used neuron of a tree replaces, and how long it takes."""
