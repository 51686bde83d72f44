"""The routes that need a token."""

ID = "0" * 8 + "-0000-4000-8000-" + "0" * 12


SECURED = [
    ("POST", "/api/v1/upload"),
    ("POST", "/api/v1/uploads"),
    ("POST", f"/api/v1/uploads/{'0' * 32}.png/complete"),
    ("POST", "/api/v1/segment"),
    ("GET", "/api/v1/concepts"),
    ("POST", "/api/v1/concepts"),
    ("GET", f"/api/v1/concepts/{ID}"),
    ("DELETE", f"/api/v1/concepts/{ID}"),
    ("GET", f"/api/v1/tasks/{ID}"),
    ("GET", f"/api/v1/tasks/{ID}/events"),
    ("POST", f"/api/v1/tasks/{ID}/cancel"),
    ("GET", "/api/v1/results"),
    ("GET", f"/api/v1/results/{ID}"),
    ("DELETE", f"/api/v1/results/{ID}"),
    ("DELETE", f"/api/v1/images/{ID}"),
    ("GET", "/api/v1/me"),
    ("DELETE", "/api/v1/me"),
    ("GET", "/api/v1/me/export"),
    ("GET", "/api/v1/projects"),
    ("POST", "/api/v1/projects"),
    ("GET", f"/api/v1/projects/{ID}"),
    ("PATCH", f"/api/v1/projects/{ID}"),
    ("DELETE", f"/api/v1/projects/{ID}"),
    ("GET", "/api/v1/webhooks"),
    ("POST", "/api/v1/webhooks"),
    ("DELETE", f"/api/v1/webhooks/{ID}"),
    ("GET", "/api/v1/webhook-deliveries"),
    ("POST", f"/api/v1/webhook-deliveries/msg_{'0' * 32}/replay"),
]
