"""Measurements that the README quotes; each compares within one run."""
