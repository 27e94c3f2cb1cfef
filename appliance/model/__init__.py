"""The model bundle: files, signature, manifest, network and self-test."""

__all__ = ["answering", "bundle", "bundle_files", "inference", "manifest", "model_file", "roi_rule", "signature"]
