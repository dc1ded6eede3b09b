"""What varies between and within episodes: bodies, damage, worlds."""
