"""Export: packs a training run into one self-proving ONNX bundle."""
