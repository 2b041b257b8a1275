"""One server process: its open sessions, its lease, and the sweep that finishes what dead nodes began."""
