"""``make field``: files from public reports, rebuilt, and the result of lungstage for each."""
