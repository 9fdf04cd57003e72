"""Many runs: grid, search, jobs, and resuming."""
