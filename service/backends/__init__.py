"""Runtimes that execute stages, behind one protocol."""
