"""Radiographs in, batches out: index, splits, decoding, DICOM, image caches, augmentation, phantoms."""
