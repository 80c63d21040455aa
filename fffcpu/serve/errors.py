"""Errors of requests, as clients see them."""

from __future__ import annotations

from http import HTTPStatus

__all__ = ["AbandonedError", "ClientLeftError", "RequestError"]


class RequestError(Exception):
    """An error of one request: its HTTP status, its kind for the metrics, and a message.

    Parameters
    ----------
    message : str
        What was expected and what came.
    status : int
        The HTTP status.
    unread : bool
        Whether the rest of the body was not read, so that the connection must be closed.
    """

    def __init__(
        self, message: str, status: int = HTTPStatus.BAD_REQUEST, *, unread: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.unread = int(status), unread

    @property
    def kind(self) -> str:
        """Name of the status, in lower case, such as ``"bad_request"``."""
        if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # Python 3.13 has another name
            return "too_large"
        return HTTPStatus(self.status).phrase.lower().replace(" ", "_")


class ClientLeftError(Exception):
    """The client closed its connection before it had an answer."""


class AbandonedError(Exception):
    """Nobody waits any longer for the outputs of a batch."""
