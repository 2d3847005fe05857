"""A toy world: shapes that move, and the truth about them."""
