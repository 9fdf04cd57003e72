"""Saliency maps, their overlays, and tests of their validity."""
