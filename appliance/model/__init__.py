"""The model bundle: its files, signature, manifest, network and self-test."""
