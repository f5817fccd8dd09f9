"""The work of a no-op job, in a module of its own because RQ wants to import it by name."""


def nothing(payload):
    """Does nothing."""
