"""Audit of a data set for properties that can make its metrics misleading."""
