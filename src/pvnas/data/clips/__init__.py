"""Clips for the network: which frames, which crop, in which order, and the batches of them."""
