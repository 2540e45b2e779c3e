"""What SNP and TDX keep of a guest's pages, and every operation that they are told to do."""
