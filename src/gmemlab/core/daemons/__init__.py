"""What the kernel does by itself: compaction, kcompactd, khugepaged."""
