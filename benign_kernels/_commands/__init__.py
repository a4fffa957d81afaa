"""The commands of ``benign``, one module each; the table is in ``cli.py``."""
