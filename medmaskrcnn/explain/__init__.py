"""What the network did with one image, step by step, as a page to read; and what a training did."""
