"""A built dataset onto the hub: only when it is asked for, only into an empty repository, private at first."""

from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from r1mm.data.access import Access
from r1mm.data.hub import hub_token
from r1mm.errors import BadInput, StageFailed

_BY_ITSELF = {".gitattributes"}  # what the hub puts into a new repository


def check_push(repo: str, access: Access) -> None:
    """Raise BadInput where a push of this name cannot work: no such name, no network wanted, no token."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise BadInput(f"--push {repo!r} is no repository's name; give OWNER/NAME") from error
    if "/" not in repo:
        raise BadInput(f"--push {repo!r} names no owner; give OWNER/NAME")
    if access.offline:
        raise BadInput(
            f"--push {repo} needs the network, and HF_HUB_OFFLINE says that there is none; unset it, or build without "
            "--push"
        )
    if not hub_token():
        raise BadInput(
            f"--push {repo} needs a token that may write: put it into a file and name the file with HF_TOKEN_PATH"
        )


def push_dataset(folder: Path, repo: str, access: Access, step: str) -> str:
    """Push the dataset that a step built and return its address.  A repository that is made for it is private.

    Raises BadInput where the repository holds something already or the token may not write there, StageFailed where the
    push does not go through; the folder is whole either way.
    """
    api = HfApi(endpoint=access.hub, token=hub_token())
    by_hand = f"the dataset is whole in {folder}: `hf upload {repo} {folder} . --repo-type dataset` pushes it by hand"
    try:
        api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        there = sorted(set(api.list_repo_files(repo, repo_type="dataset")) - _BY_ITSELF)
        if there:
            raise BadInput(
                f"{access.hub}/datasets/{repo} holds {there[0]} and {len(there) - 1} more files, and a push would mix "
                f"with them; name a new repository; {by_hand}"
            )
        api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder, commit_message=f"Built by r1mm {step}")
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise BadInput(
                f"{access.hub} refuses to let this token write to {repo} (status {status}); give one that may with "
                f"HF_TOKEN_PATH; {by_hand}"
            ) from error
        raise StageFailed(f"{access.hub} answered with status {status}; {by_hand}") from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        raise StageFailed(f"{access.hub} cannot be reached ({type(error).__name__}); {by_hand}") from error
    return f"{access.hub}/datasets/{repo}"
