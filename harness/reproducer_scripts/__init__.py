"""The parts that a reproducer's ``reproduce.py`` is put together from; only their text is used, see ``reproducer``."""
