"""Many runs: what they are called, which of them remain to be done, and what became of each."""
