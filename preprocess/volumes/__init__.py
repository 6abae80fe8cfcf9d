"""Scans on disk -> volumes -> crops."""
