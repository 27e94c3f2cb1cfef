"""Offline training: a feature table in, a fitted fifteen-feature network and its honest figures out."""

__all__ = ["configuration", "evaluation", "files", "model", "procedure", "run", "selection"]
