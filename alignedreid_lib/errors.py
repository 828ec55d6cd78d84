"""The one error the library raises about what it was given."""


class InputError(ValueError):
    """A file, value or setting cannot be used; the message names it and says what to do."""
