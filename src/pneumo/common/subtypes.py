"""The subtypes of pneumonia."""

SUBTYPES = ("bacterial", "viral")  # in the order of their classes; part of the keys of results.json
