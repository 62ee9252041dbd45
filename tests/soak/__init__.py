"""The long tests, `make soak`: seeded scenarios of many rounds, one at a time, resumable, each round to be replayed."""
