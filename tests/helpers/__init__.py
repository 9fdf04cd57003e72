"""Helpers of the tests: inputs that go wrong, servers, runs and reference values."""
