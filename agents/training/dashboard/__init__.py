"""What a run shows in TensorBoard beside single scalars."""
