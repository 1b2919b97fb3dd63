"""Studio: a web page to invert, steer, paint and compare pictures."""
