"""``make field``: the files that people reported elsewhere, rebuilt, and what lungstage says of each."""
