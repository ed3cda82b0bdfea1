"""The one exception that a command turns into one line and a non-zero exit."""


class UserError(Exception):
    """Something its user can mend; the message is one line that says what to do."""
