"""Maps of where in a film an answer comes from, and tests of what they are worth."""
