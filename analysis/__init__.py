"""From the runs of a sweep to a report: load -> aggregate -> pareto -> plots -> report."""
