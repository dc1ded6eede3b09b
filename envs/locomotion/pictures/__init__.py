"""Seeing a body: renderings, limb graphs, tables."""
