"""What a user did wrong, as one kind of exception.

The command line turns a `UserError` into a sentence and exit status 2. Every other exception is a
fault, of the suite or of somebody's method, and is reported with the file and line that it came
from. So a method may raise `UserError` from `resolve` to refuse a combination of options, and a
plain `ValueError` or `KeyError` out of a method is never taken for a typing error.
"""

from __future__ import annotations


class UserError(ValueError):
    """Something that was asked for cannot be done: one sentence says why and what to do."""


class UnknownNameError(UserError, KeyError):
    """A name that nobody registered; the sentence gives the nearest one.

    It is a KeyError as well, since Python callers look names up.
    """

    def __str__(self) -> str:
        """Return the sentence without the quotes that KeyError adds."""
        return ValueError.__str__(self)


class MissingError(UserError, LookupError):
    """Something that an earlier command left behind is gone; the sentence says how to get it back.

    It is a LookupError as well.
    """


class ConflictError(ValueError):
    """Records that should be the same number disagree: no mistake of the user's, and no fault.

    The message lists every disagreement on a line of its own. The command line ends with exit
    status 1.
    """


class MethodError(ValueError):
    """A method broke, or did what no method may: its author's fault, not the user's.

    It is a ValueError for callers from Python, and no `UserError`.
    """
