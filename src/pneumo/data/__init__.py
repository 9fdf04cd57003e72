"""Data pipeline: download, index, splits, decoding, DICOM, caches, augmentation, batches and phantoms."""
