"""Planning for hardware that is not there: its compilers, sizes and figures."""
