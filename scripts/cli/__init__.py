"""What stands around Hydra: the command line, from its arguments to a run in a folder of its own."""
