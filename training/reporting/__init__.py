"""Results of a run for readers: the HTML page with its figures and checklists, and the tables on the terminal."""

__all__ = ["comparison_page", "report", "summary"]
