"""Plan a compaction: how much room there is, and which messages are cut, elided or archived."""
