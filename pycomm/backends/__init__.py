"""Backends: ways to move bytes behind one interface."""
