"""Claims of function matching (arXiv 2106.05237), each with what is expected."""
