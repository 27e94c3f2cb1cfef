"""Export: packs a training run into one self-proving ONNX bundle."""

__all__: list[str] = []
