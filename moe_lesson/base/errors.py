"""How the course refuses bad input: the value, what was expected, what to do."""


def require(holds: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not holds:
        raise ValueError(message)
