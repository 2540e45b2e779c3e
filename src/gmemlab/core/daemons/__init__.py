"""What the kernel does beside the operations, by itself or on demand: compaction."""
