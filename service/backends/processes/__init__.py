"""Stages in processes of their own, beside the interpreter of the HTTP server."""
