"""Watching an agent act, and disturbing it: what keys do, and the windows that show it."""
