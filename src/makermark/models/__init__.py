"""Networks, losses, checkpoints, and the embeddings that a network computes."""
