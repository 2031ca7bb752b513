"""The two ways in which r1mm stops on purpose, and the exit status of each."""


class BadInput(Exception):
    """What the user gave cannot be used; nothing was written.  Exit status 2.

    The text says what is wrong, the value seen, and what to do.
    """


class StageFailed(Exception):
    """A stage started and could not finish; what it had completed is kept.  Exit status 1."""
