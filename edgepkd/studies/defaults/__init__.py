"""The study of the default recipe: does it carry over to sets that it was not chosen on?"""
