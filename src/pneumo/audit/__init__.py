"""Properties of a data set that can make its numbers misleading."""
