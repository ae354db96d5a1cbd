"""What is measured: the host (`system`) and the workers' process trees (`process`)."""
