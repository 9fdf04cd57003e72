"""The audit of a data set: properties that can make its numbers misleading."""
