"""What was asked: the sweep file, its search space, and the plan that follows from it."""
