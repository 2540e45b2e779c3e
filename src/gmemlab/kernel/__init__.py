"""The live world: what the running Linux tells about itself. Standard library only, with all it imports."""
