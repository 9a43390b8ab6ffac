"""What makes another form of a model out of a model: quantised, exported, slimmer."""
