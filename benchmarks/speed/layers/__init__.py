"""FastFeedForward and LeafFeedForward compared with dense runtimes and other FFFs."""
