"""The suite, which mirrors the rooms: docs/architecture.md, Tests."""
