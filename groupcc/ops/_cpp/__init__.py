"""What the launchers of the C++ kernels share. Importing a module here needs the extension groupcc._C."""
