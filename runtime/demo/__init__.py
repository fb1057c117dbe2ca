"""Draw synthetic portraits of people who do not exist, for the demo, the benchmarks and the tests."""
