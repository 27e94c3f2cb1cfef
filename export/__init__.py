"""Export: pack a training run into one ONNX bundle with hashes and a self-test."""

__all__: list[str] = []
