"""What a team hands in: the contest's rules as checks, and the packing of a run."""
