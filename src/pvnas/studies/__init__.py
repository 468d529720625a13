"""The paper's experiments, each one command: ``pvnas study NAME DATA``.

``experiments`` says what each compares, ``parts`` what it is made of (runs, each one ``pvnas`` command with a directory
that locks and resumes), ``workers`` makes them, ``outcome`` reads them, ``statistics`` and ``tables`` say what the
numbers do and do not show.
"""
