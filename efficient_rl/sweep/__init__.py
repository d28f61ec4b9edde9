"""Plans, launches and watches the runs of one command."""
