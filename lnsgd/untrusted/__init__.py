"""Opens files that may be broken, or of anyone: nothing in them is run, and what is refused is said in one line.

Everything raises ValueError: one that names the file, or ``UnreadableError``, which says only the reason, for
callers that have a sentence of their own around it.
"""
