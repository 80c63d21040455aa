"""How well distilled encoders follow their teacher, and how fast they are beside it."""
