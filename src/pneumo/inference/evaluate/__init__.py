"""External validation: a classifier's performance on labelled images of any source."""
