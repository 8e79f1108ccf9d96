"""How well: metrics with intervals, controls, the scoreboard, the figures, exercise checks."""
