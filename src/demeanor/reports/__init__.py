"""Reports: results in, one self-contained HTML file out. Pure functions; nothing here runs a model."""
