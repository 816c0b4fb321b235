"""Reports for people: the table of results and pictures of what a model finds."""
