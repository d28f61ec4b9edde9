"""From the runs of a sweep to a report: data -> stats -> figures -> report, claims, compare."""
