"""Networks that are not invertible: conditioners, generators, critics and encoders."""
