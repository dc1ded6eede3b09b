"""Acting policies for programs that know neither torch nor Somite."""
