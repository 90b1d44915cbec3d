"""Networks, one folder each."""
