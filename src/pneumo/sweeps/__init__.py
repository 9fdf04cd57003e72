"""Many runs: the grid, the search, their jobs, and their resumption."""
