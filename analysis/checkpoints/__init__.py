"""What single checkpoints show: the health of their weights, what they do on data, which of them to use."""
