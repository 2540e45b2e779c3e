"""Model against kernel: the same random operations in both worlds, compared after every step."""
