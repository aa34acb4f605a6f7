"""How the networks of the world are fitted: generator, encoder and reader of parameters."""
