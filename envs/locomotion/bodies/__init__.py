"""Bodies: families, robots of users, their limbs and descriptors."""
