"""From a recipe to Arrow files with a manifest, and back to rows in a resumable order."""
