"""Statistics of runs: intervals, one summary for each configuration, comparisons, fronts."""
