"""What a prompt found in a picture: instances, masks, boxes, scores; drawn and exported."""
