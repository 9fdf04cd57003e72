"""The files that runs leave; no other package reads or writes them."""
