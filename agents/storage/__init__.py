"""What lies on disk: policies, checkpoints, run folders, locks, and reading what strangers wrote."""
