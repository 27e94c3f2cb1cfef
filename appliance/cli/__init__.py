"""The command line: what a person types, and what is printed in answer."""

__all__: list[str] = []
