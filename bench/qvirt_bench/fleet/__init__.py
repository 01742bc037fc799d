"""Many objects on few cores: a real API server, and programs that play the nodes' part."""
