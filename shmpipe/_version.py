"""The version, written down once: the package, its metadata and libshmpipe read it here."""

__version__ = "0.1.0"
