"""The sections of a sweep's report, one file each: `analysis/document.py` calls them in order."""
