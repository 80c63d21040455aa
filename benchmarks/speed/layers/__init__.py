"""FastFeedForward and LeafFeedForward beside dense runtimes and other FFFs."""
