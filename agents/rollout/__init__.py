"""Episodes while training: buffers of rollouts, and populations evaluated on one machine or many."""
