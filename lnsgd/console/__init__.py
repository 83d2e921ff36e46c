"""Text that commands print: one-line errors, parsers, and numbers formatted for people."""
