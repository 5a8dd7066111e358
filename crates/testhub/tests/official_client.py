"""Drives the hub stand-in with the official client. Arguments: base URL, served directory, scratch directory."""

import hashlib
import os
import pathlib
import sys

endpoint, root, scratch = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
os.environ.update(HF_ENDPOINT=endpoint, HF_HOME=str(scratch), HF_HUB_DISABLE_PROGRESS_BARS="1",
                  HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_IMPLICIT_TOKEN="1", HF_HUB_DISABLE_XET="1")

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError,
)

REPO = "acme/Model-GGUF"
api = HfApi(endpoint=endpoint)


def raises(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error as caught:
        return caught
    raise AssertionError(f"{call.__name__} did not raise {error.__name__}")


# Model info, by branch and by commit, with and without blob details.
info = api.model_info(REPO)
assert len(info.sha) == 40 and info.id == REPO and info.gated is False, info
assert api.model_info(REPO, revision=info.sha).sha == info.sha
detailed = {s.rfilename: s for s in api.model_info(REPO, files_metadata=True).siblings}

# The tree, over several pages.
local = {str(p.relative_to(root / REPO)): p.read_bytes() for p in (root / REPO).rglob("*") if p.is_file()}
tree = list(api.list_repo_tree(REPO, recursive=True, expand=True))
files = {f.path: f for f in tree if hasattr(f, "blob_id")}
assert files.keys() == local.keys() == detailed.keys(), (files.keys(), local.keys())
for path, content in local.items():
    assert files[path].size == len(content) == detailed[path].size, path
    sha256 = hashlib.sha256(content).hexdigest()
    if path.endswith(".gguf"):
        assert files[path].lfs.sha256 == sha256 == detailed[path].lfs.sha256, path
    else:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        assert files[path].lfs is None and files[path].blob_id == blob, path
assert {f.path for f in tree if not hasattr(f, "blob_id")} == {"Q4_K_M"}
below = {f.path for f in api.list_repo_tree(REPO, path_in_repo="Q4_K_M")}
assert below == {p for p in local if p.startswith("Q4_K_M/")}, below

# Headers of resolve.
shard = next(p for p in sorted(local) if p.endswith(".gguf"))
meta = get_hf_file_metadata(hf_hub_url(REPO, shard, endpoint=endpoint))
assert meta.commit_hash == info.sha and meta.size == len(local[shard])
assert meta.etag == hashlib.sha256(local[shard]).hexdigest() and meta.location.split("/")[2] != endpoint.split("/")[2]

# A whole snapshot, byte for byte.
snapshot = pathlib.Path(snapshot_download(REPO, cache_dir=scratch / "cache"))
assert snapshot.name == info.sha
for path, content in local.items():
    assert (snapshot / path).read_bytes() == content, path

# A renamed repository is found by its old name.
assert api.model_info("acme/Old-Name").sha == info.sha
old = hf_hub_download("acme/Old-Name", shard, cache_dir=scratch / "old")
assert pathlib.Path(old).read_bytes() == local[shard]

# Errors.
raises(RepositoryNotFoundError, api.model_info, "acme/none")
raises(RevisionNotFoundError, api.model_info, REPO, revision="0" * 40)
raises(EntryNotFoundError, hf_hub_download, REPO, "none.gguf", cache_dir=scratch / "none")
raises(RepositoryNotFoundError, api.model_info, "acme/Private")
assert api.model_info("acme/Private", token="good").private
bad = raises(HfHubHTTPError, api.model_info, REPO, token="bad")
assert bad.response.status_code == 401 and not isinstance(bad, RepositoryNotFoundError)
for token, status in ((None, 401), ("outsider", 403)):
    gated = raises(GatedRepoError, hf_hub_download, "acme/Gated", "a.gguf", token=token, cache_dir=scratch / "gated")
    cause = gated if getattr(gated, "response", None) is not None else gated.__cause__
    assert cause.response.status_code == status, (token, cause)
assert api.model_info("acme/Gated").gated == "auto"
good = hf_hub_download("acme/Gated", "a.gguf", token="good", cache_dir=scratch / "good")
assert pathlib.Path(good).read_bytes() == (root / "acme/Gated/a.gguf").read_bytes()
print("ok")
