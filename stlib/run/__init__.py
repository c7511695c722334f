"""One run of one method on one category, from images to record."""
