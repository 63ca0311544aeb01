"""Images: where they come from, how they become tensors, and in which order they are drawn."""
