"""The inbox: files noticed, read and grouped into studies."""
