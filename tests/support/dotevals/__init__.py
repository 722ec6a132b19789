"""The documentation and examples of dotevals as evaluation files: what existing users have written looks like that."""
