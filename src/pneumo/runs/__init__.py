"""Files of runs; no other package reads or writes them."""
