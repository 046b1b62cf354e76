"""Planners: algorithms that turn a request into a schedule."""
