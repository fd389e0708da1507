"""A second implementation of the snapshot format, written from its specification alone.

Formats/snapshot.md, full-precision.md, kivi.md and, for what writers decide, think.md are the
source; "snapshot.md, Header" in a docstring names the section that a piece of code follows. It favours being easy
to compare with the text over speed, and needs nothing but Python 3.11 and, for compressed
sections, the system's libzstd.
"""
