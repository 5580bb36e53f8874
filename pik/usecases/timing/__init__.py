"""When events arrived: lag, skewed clocks, gaps."""
