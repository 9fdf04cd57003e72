"""Radiographs: found, decoded, split, drawn, downloaded, and served in batches."""
