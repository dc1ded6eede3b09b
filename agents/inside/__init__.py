"""Looking inside a policy: what it attends to, what its limbs tell each other, in numbers and pictures."""
