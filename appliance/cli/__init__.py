"""The command line: the commands, their options and what they print."""

__all__: list[str] = []
