"""Results: the instances found for a prompt (masks, boxes, scores), and how to draw, export and store them."""
