"""Plans, made before any byte moves: who feeds whom, and how long it should take."""
