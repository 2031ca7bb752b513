"""The verbs of the command line, by what they are about: parse, call, print; nothing else."""
