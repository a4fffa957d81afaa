"""The commands of ``benign``, one module each; the table is in ``cli.py``."""


class UsageError(ValueError):
    """Arguments that are wrong in a way that only the command can tell."""
