"""One session on this node: its actor, its hold on the store, its workers and its subscribers."""
