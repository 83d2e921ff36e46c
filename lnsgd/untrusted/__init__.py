"""Untrusted files: read files that may be damaged or hostile, without ever executing code from them.

A file that is refused raises ValueError in one line. The error names the file or, as ``UnreadableError``, contains only
the reason, for callers that put it into a sentence of their own.
"""
