"""Confined processes that meet the files in the daemon's place."""
