"""The files of Formats/Vectors; Tools/make-vectors writes them."""
