"""Machine: all that is known of the hardware, measured or described. Pure values."""
