"""One process or many: the group, its parts of the work, and how it is started."""
