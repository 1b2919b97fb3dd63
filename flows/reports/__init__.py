"""Reports of runs, written after training from the exported model and the test split."""
