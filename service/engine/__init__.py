"""The scheduler and the lane that drives the backend; everything pure but `engine` and `inbox`."""
