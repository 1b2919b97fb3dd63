"""Networks that are not invertible: conditioners of couplings."""
