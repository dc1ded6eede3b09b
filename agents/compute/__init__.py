"""Where a population is evaluated: on this machine, or on a cluster."""

from .choices import Compute, Local, check_algorithm, compute_of
from .ray_population import Ray

__all__ = ["Compute", "Local", "Ray", "check_algorithm", "compute_of"]
