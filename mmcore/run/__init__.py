"""What happens over time: the op stream and the engine that runs it."""
