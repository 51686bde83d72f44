"""A client that calls PostgREST directly, as any user can do with their token."""

from __future__ import annotations

from s3seg.tasks.object_keys import new_image_key


class Client:
    """A client with a token that calls PostgREST directly, without the edge."""

    def __init__(self, http, token):
        self._http = http
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def send(self, method, path, *, headers=None, **request):
        return self._http.request(method, path, headers={**self._headers, **(headers or {})}, **request)

    def rows(self, table, select="*", **query):
        return self.send("GET", f"/{table}", params={"select": select, **query})

    def call(self, function, **arguments):
        return self.send("POST", f"/rpc/{function}", json=arguments)


def user_with_data(sign_up):
    user_id, client = sign_up()
    assert client.send("POST", "/projects", json={"name": "mine"}).status_code == 201
    assert client.send("POST", "/concepts", json={"name": "mine", "definition": {}}).status_code == 201
    image = register(client, user_id).json()
    submit(client, image).raise_for_status()
    return user_id, client


def register(client, user_id, **changes):
    arguments = {
        "p_object_key": new_image_key(user_id, "image/png"),
        "p_content_type": "image/png",
        "p_size_bytes": 10,
        "p_width": 4,
        "p_height": 3,
    }
    return client.call("register_image", **{**arguments, **changes})


def submit(client, image, prompts=("cat",), **more):
    return client.call("submit_segmentation", p_image_url=image["image_url"], p_text_prompts=list(prompts), **more)
