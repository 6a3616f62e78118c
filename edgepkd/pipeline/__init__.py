"""One function a verb: settings in, results out. The command line is made of these.

Import from the modules; each needs what its verb needs, and this one imports nothing.
"""
