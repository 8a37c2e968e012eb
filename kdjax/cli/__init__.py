"""The command line. Starts JAX only once the options are known to be good."""
