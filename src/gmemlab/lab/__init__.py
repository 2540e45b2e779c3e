"""The laboratory: procedures over models and kernels."""
