"""Scheduler, admission, exit policies, and the lane that drives a backend by them."""
