"""From a picture and prompts to results: the segmenter, the batcher and worker of the services, the pipeline."""
