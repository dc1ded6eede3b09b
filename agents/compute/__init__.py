"""Where a population is evaluated: on this machine, or on a cluster."""

from .choices import Compute, Local, Ray, check_algorithm, compute_of

__all__ = ["Compute", "Local", "Ray", "check_algorithm", "compute_of"]
