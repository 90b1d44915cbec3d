"""Mixed load for as long as is asked for: whether everything is settled and nothing grows."""
