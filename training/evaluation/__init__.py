"""How well a procedure does, with every fit inside the fold: methods, figures, curves, stability, verdicts."""
