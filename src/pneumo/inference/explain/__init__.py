"""Saliency maps and tests of their validity."""
