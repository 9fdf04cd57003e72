"""Configuration layer between Hydra and the code: value checks, fingerprints, resolvers and console output."""
