"""Says before a run starts what would end it, and what memory and time it takes."""
