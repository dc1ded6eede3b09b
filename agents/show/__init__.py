"""Looking at an agent: into its attention and messages, in videos, and live in a window."""
