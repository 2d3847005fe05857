"""A checkpoint folder to the hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is its HTTP client's
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from llava_next_video.errors import CheckpointError
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.model.checkpoint import refuse_folder

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def push(
    folder: Path,
    name: str,
    *,
    private: bool = False,
    message: str = "Upload a LLaVA-NeXT-Video checkpoint",
    endpoint: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a checkpoint and give the address of its page; a repository that exists gets a commit.

    Args:
        folder: A checkpoint that loads here.
        name: owner/name on the hub.
        private: Whether a new repository is hidden from others.
        message: Of the commit.
        endpoint: Another hub than the one that huggingface_hub is set to.
        token: Another one than that of `hf auth login` or HF_TOKEN.

    Raises:
        CheckpointError: no checkpoint, no name on the hub, no token, or what the hub objected to.
    """
    refuse_folder(folder)
    LlavaNextVideoConfig.from_pretrained(folder)
    if not _NAME.fullmatch(name):
        raise CheckpointError(f"{name!r} is no name on the hub; expected owner/name")
    api = HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder, repo_id=name, commit_message=message, ignore_patterns=[".*"]
        )
    except LocalTokenNotFoundError as error:
        raise CheckpointError(_no_token(name)) from error
    except OfflineModeIsEnabled as error:
        raise CheckpointError(f"{name} cannot be reached: HF_HUB_OFFLINE is set; unset it") from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 401:
            raise CheckpointError(_no_token(name)) from error
        raise CheckpointError(f"the hub refuses {name}: {' '.join(str(error).split())}") from error
    except (HTTPError, OSError) as error:
        raise CheckpointError(f"the hub cannot be reached for {name}: {error}") from error
    return commit.repo_url.url


def _no_token(name: str) -> str:
    return f"the hub wants a token that may write {name}; set HF_TOKEN, or log in with `hf auth login`"
