"""Load: what a server makes of more work than it can do, beside its peers and beside a bound."""
