"""Units: what each draws, what happens without it, what a model cannot draw."""
