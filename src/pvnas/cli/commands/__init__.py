"""One module for each command, or for a few that belong together; ``pvnas`` finds them here by itself.

Everything slow is imported inside the functions, so that help and mistakes come at once.
"""
