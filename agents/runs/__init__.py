"""Training runs: what each algorithm does from start to end, what is saved of it, and how it goes on."""
