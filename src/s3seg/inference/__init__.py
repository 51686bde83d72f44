"""Inference: the `Segmenter` of the library, and the batcher, pipeline and worker of the services."""
