"""The interfaces of the original contract, copied from it by hand, field by field.

A type is written as in the original, in TypeScript's words for the edge and Python's for the gpu service.
``?`` after a name is the original's own mark. Nothing here is derived from our models; they are held
against it.
"""

EDGE = {
    "UploadRequest": {"project_id?": "uuid"},  # beside the part `file`, which is no JSON
    "UploadResponse": {
        "image_id": "uuid",
        "image_url": "string",
        "size_bytes": "number",
        "content_type": "string",
    },
    "SegmentRequest": {"image_url": "string", "text_prompt": "string", "project_id?": "uuid"},
    "SegmentResponse": {"task_id": "uuid", "status": '"pending"'},
    "TaskResponse": {
        "task_id": "string",
        "status": "TaskStatus",
        "result_id?": "string",
        "error_message?": "string",
        "created_at": "time",
        "updated_at": "time",
    },
    "ResultsQuery": {"project_id?": "uuid", "page?": "number", "limit?": "number"},
    "ResultsListResponse": {
        "results": "ResultSummary[]",
        "total": "number",
        "page": "number",
        "limit": "number",
    },
    "ResultSummary": {
        "id": "string",
        "source_image_url": "string",
        "mask_image_url": "string",
        "text_prompt": "string",
        "status": "TaskStatus",
        "created_at": "time",
    },
    "ResultDetailResponse": {
        "id": "string",
        "project_id": "string | null",
        "source_image_url": "string",
        "mask_image_url": "string",
        "text_prompt": "string",
        "labels": "string[]",
        "metadata": "ResultMetadata",  # an inline object in the original
        "status": "TaskStatus",
        "created_at": "time",
        "updated_at": "time",
    },
    "ResultMetadata": {"inference_time_ms": "number", "confidence": "number", "model_version": "string"},
}

ENVELOPE = {
    "ErrorBody": {"code": "string", "message": "string"},
    "Meta": {"request_id": "uuid", "timestamp": "time"},
}

TASK_STATUS = ["pending", "processing", "done", "error"]

GPU = {
    "HealthResponse": {
        "status": "str",
        "model_loaded": "bool",
        "gpu_available": "bool",
        "gpu_name": "Optional[str]",
        "vram_used_mb": "Optional[float]",
        "vram_total_mb": "Optional[float]",
    },
    "PredictRequest": {"image_url": "str", "text_prompt": "str", "user_id": "str", "task_id": "str"},
    "PredictResponse": {
        "task_id": "str",
        "mask_url": "str",
        "labels": "list[str]",
        "inference_time_ms": "float",
        "confidence": "float",
    },
    "BatchPredictRequest": {"image_url": "str", "prompts": "list[str]", "user_id": "str", "task_id": "str"},
    "BatchPredictResponse": {
        "task_id": "str",
        "results": "list[PredictResponse]",
        "total_inference_time_ms": "float",
    },
    "ModelInfoResponse": {
        "model_name": "str",
        "model_version": "str",
        "parameters": "int",
        "weights_size_gb": "float",
        "device": "str",
        "dtype": "str",
    },
}

ERROR_CODES = {
    "AUTH_REQUIRED": 401,
    "AUTH_INVALID": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "INVALID_REQUEST": 400,
    "FILE_TOO_LARGE": 413,
    "INSUFFICIENT_CREDITS": 402,
    "RATE_LIMITED": 429,
    "MODEL_NOT_LOADED": 503,
    "INFERENCE_FAILED": 500,
    "INTERNAL_ERROR": 500,
}

RATES = {  # tier: (upload, segment, results query) per minute
    "free": (10, 5, 60),
    "pro": (30, 20, 120),
    "enterprise": (100, 60, 300),
}

# What we add, field by field; a field that is in neither list fails the test.
ADDED = {
    "UploadRequest": {"expires_in_s?"},
    "UploadResponse": {"expires_at?"},
    "SegmentRequest": {"text_prompts?", "clicks?", "concept_id?", "tile?", "expires_in_s?"},
    "TaskResponse": {"expires_at?"},
    "ResultSummary": {"expires_at?"},
    "ResultDetailResponse": {"expires_at?"},
    "PredictRequest": {"clicks?", "tile?"},
    "BatchPredictRequest": {"tile?"},
    "ResultsQuery": {"cursor?"},
    "ResultsListResponse": {"next_cursor?"},
    "ResultMetadata": {"instances_url?", "prompts?"},
}

# Requests that we make laxer: a client of the original never notices.
LAXER = {("SegmentRequest", "text_prompt")}  # may be absent where text_prompts is given
