"""Short examples, each a file to copy and change."""
