"""Draw a tumour's contour from a line, a box or a point that a person placed: a volume and a prompt in, a mask out."""

__all__ = ["drawing", "prompts", "windows"]
