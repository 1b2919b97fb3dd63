"""Execution of chains: one plan, and the executors that it chooses from."""
