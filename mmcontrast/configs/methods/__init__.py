"""One method of the literature a file, on the data, towers and schedule of the quickstart."""
