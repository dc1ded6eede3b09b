"""Tasks of sensors whose tensors live on a device: what steps them and what is done to their senses."""
