"""Reports what the runs of a sweep are doing."""
