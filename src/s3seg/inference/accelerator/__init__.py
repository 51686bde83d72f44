"""The network in a process of its own, so that nothing else that a service does can hold it up.

A Python process runs one thread at a time. In a service that decodes, makes masks and answers requests, the thread that
feeds the accelerator waits for its turn, and the accelerator waits for that thread. `PredictorProcess` takes the
place of a `s3seg.sam3.predictor.Predictor`, with one process for each device.
"""
