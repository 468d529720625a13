"""``pvnas run DATA --hours H``: what to run on these videos, on this machine, in so many hours.

``begin`` opens and checks the videos, has the speed of steps measured (``measure``), has a config chosen from
these numbers alone (``choose``), says what came of it and what to expect (``expect``), and keeps it.
"""
