"""What a run achieved: metrics and the files that tell of them."""
