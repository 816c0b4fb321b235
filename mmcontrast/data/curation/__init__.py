"""Which records of a large set are kept: rules, duplicates, entries. Pure functions on what is known of each record."""
