"""What the Triton kernels of several ops share. Importing a module here needs Triton."""
