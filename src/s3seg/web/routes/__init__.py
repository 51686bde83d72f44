"""The routes of both services, a module per resource: each route reads a request, calls a use case, and answers.

A route's entry in the table of operations (path, summary, responses, rate limit) stands beside it.
"""
