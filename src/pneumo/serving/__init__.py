"""A local page for one film at a time."""
