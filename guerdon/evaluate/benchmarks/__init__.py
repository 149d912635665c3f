"""Published benchmarks of reward models, one file each: how the data are read, and the official rule as a pure function."""
