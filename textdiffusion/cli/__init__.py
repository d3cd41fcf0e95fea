"""The commands, by subject; each imports the room it needs when it is called."""
