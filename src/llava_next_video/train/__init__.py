"""Learning: recipes, tunable parts, objectives and one loop."""
