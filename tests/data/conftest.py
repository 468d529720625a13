"""Puts this folder on the path: its rooms share `attacks`."""
